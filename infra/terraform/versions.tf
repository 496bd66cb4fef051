terraform {
  required_version = ">= 1.9"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 6.14"
    }
    random = {
      source  = "hashicorp/random"
      version = "~> 3.6"
    }
  }

  # The bucket is named at `terraform init -backend-config=bucket=...` (docs/operations.md).
  backend "gcs" {
    prefix = "kintsugi"
  }
}

provider "google" {
  project = var.project
  region  = var.region
}
