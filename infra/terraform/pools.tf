resource "google_container_node_pool" "cpu" {
  name               = "cpu"
  cluster            = google_container_cluster.this.id
  initial_node_count = var.cpu_pool.min_nodes

  autoscaling {
    min_node_count = var.cpu_pool.min_nodes
    max_node_count = var.cpu_pool.max_nodes
  }

  management {
    auto_repair  = true
    auto_upgrade = true
  }

  node_config {
    machine_type    = var.cpu_pool.machine_type
    disk_type       = "pd-balanced"
    disk_size_gb    = 100
    image_type      = "COS_CONTAINERD"
    service_account = google_service_account.nodes.email
    oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]
    labels          = local.labels

    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }

    workload_metadata_config {
      mode = "GKE_METADATA"
    }
  }

  lifecycle {
    ignore_changes = [initial_node_count]
  }
}

# After the CPU pool: to every pool but a cluster's first, GKE itself adds the taint nvidia.com/gpu=present:NoSchedule.
# It is not declared here, which would show as a change for ever. GKE labels the nodes with their card as well.
resource "google_container_node_pool" "gpu" {
  for_each = var.gpu_pools

  name               = each.key
  cluster            = google_container_cluster.this.id
  initial_node_count = 0

  autoscaling {
    total_min_node_count = 0
    total_max_node_count = each.value.max_nodes
    location_policy      = "ANY"
  }

  management {
    auto_repair  = true
    auto_upgrade = true
  }

  node_config {
    machine_type    = local.profiles[each.key].machine_type
    spot            = each.value.spot
    disk_type       = "pd-balanced"
    disk_size_gb    = 200
    image_type      = "COS_CONTAINERD"
    service_account = google_service_account.nodes.email
    oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]
    labels          = local.labels

    guest_accelerator {
      type  = local.profiles[each.key].accelerator
      count = 1

      gpu_driver_installation_config {
        gpu_driver_version = local.profiles[each.key].driver
      }
    }

    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }

    workload_metadata_config {
      mode = "GKE_METADATA"
    }
  }

  lifecycle {
    ignore_changes = [initial_node_count]
  }

  depends_on = [google_container_node_pool.cpu]
}
