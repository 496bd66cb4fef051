output "connect" {
  description = "the command after which kubectl reaches the cluster"
  value       = "gcloud container clusters get-credentials ${google_container_cluster.this.name} --region ${var.region} --project ${var.project}"
}

output "registry" {
  description = "where the images go: make images REGISTRY=..."
  value       = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.name}"
}

output "pipeline_root" {
  description = "Kubeflow's defaultPipelineRoot"
  value       = "gs://${google_storage_bucket.this["pipelines"].name}"
}

output "settings" {
  description = "infra/kustomize/overlays/gke/settings.env"
  value       = "MLFLOW_ARTIFACTS_DESTINATION=gs://${google_storage_bucket.this["mlflow"].name}\n"
}

output "database_host" {
  description = "private address of PostgreSQL"
  value       = google_sql_database_instance.mlflow.private_ip_address
}

output "database_password" {
  description = "secret that holds the password of the user mlflow"
  value       = google_secret_manager_secret.mlflow.secret_id
}
