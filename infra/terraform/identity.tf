# Kubernetes' service accounts are bound as they are, without accounts of Google beside them (Workload Identity
# Federation): each to its own bucket and to nothing else.
data "google_project" "this" {
  project_id = var.project
}

locals {
  identities = "principal://iam.googleapis.com/projects/${data.google_project.this.number}/locations/global/workloadIdentityPools/${var.project}.svc.id.goog/subject"
  mlflow     = "${local.identities}/ns/kintsugi/sa/mlflow"
  steps      = "${local.identities}/ns/kubeflow/sa/pipeline-runner"
  pages      = "${local.identities}/ns/kubeflow/sa/ml-pipeline-ui"

  grants = {
    "mlflow keeps artifacts" = { bucket = "mlflow", role = "roles/storage.objectUser", member = local.mlflow }
    "steps hand over"        = { bucket = "pipelines", role = "roles/storage.objectUser", member = local.steps }
    "pages show reports"     = { bucket = "pipelines", role = "roles/storage.objectViewer", member = local.pages }
    "steps read pictures"    = { bucket = "data", role = "roles/storage.objectViewer", member = local.steps }
  }

  node_roles = ["roles/logging.logWriter", "roles/monitoring.metricWriter", "roles/monitoring.viewer", "roles/stackdriver.resourceMetadata.writer"]
}

resource "google_storage_bucket_iam_member" "this" {
  for_each = local.grants

  bucket = google_storage_bucket.this[each.value.bucket].name
  role   = each.value.role
  member = each.value.member

  depends_on = [google_container_cluster.this] # the pool of identities comes with the first cluster
}

resource "google_service_account" "nodes" {
  account_id   = "${var.name}-nodes"
  display_name = "Nodes of ${var.name}"

  depends_on = [google_project_service.this]
}

resource "google_project_iam_member" "nodes" {
  for_each = toset(local.node_roles)

  project = var.project
  role    = each.value
  member  = google_service_account.nodes.member
}

resource "google_artifact_registry_repository_iam_member" "nodes" {
  repository = google_artifact_registry_repository.images.name
  location   = var.region
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.nodes.member
}
