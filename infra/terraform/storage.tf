locals {
  buckets = {
    data      = "pictures to train on"
    mlflow    = "MLflow's artifacts: models, Bentos, reports"
    pipelines = "what Kubeflow's steps hand each other"
  }
}

resource "google_storage_bucket" "this" {
  for_each = local.buckets

  name                        = "${var.project}-${var.name}-${each.key}"
  location                    = var.region
  force_destroy               = !var.deletion_protection
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  labels                      = merge(local.labels, { holds = each.key })

  versioning {
    enabled = true
  }

  soft_delete_policy {
    retention_duration_seconds = 604800
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }

    condition {
      num_newer_versions = 3
      with_state         = "ARCHIVED"
    }
  }

  logging {
    log_bucket = google_storage_bucket.logs.name
  }

  depends_on = [google_project_service.this]
}

resource "google_storage_bucket" "logs" {
  #checkov:skip=CKV_GCP_62:it is where the others log to
  name                        = "${var.project}-${var.name}-logs"
  location                    = var.region
  force_destroy               = !var.deletion_protection
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  labels                      = local.labels

  versioning {
    enabled = true
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }

    condition {
      age = 90
    }
  }

  depends_on = [google_project_service.this]
}
