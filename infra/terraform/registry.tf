resource "google_artifact_registry_repository" "images" {
  #checkov:skip=CKV_GCP_84:Google's keys will do
  repository_id = var.name
  location      = var.region
  format        = "DOCKER"
  description   = "Images of Kintsugi"
  labels        = local.labels

  docker_config {
    immutable_tags = true
  }

  cleanup_policies {
    id     = "untagged"
    action = "DELETE"

    condition {
      tag_state  = "UNTAGGED"
      older_than = "2592000s"
    }
  }

  depends_on = [google_project_service.this]
}
