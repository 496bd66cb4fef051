variable "project" {
  description = "Google Cloud project"
  type        = string
}

variable "region" {
  description = "region of the cluster, the database and the buckets"
  type        = string
  default     = "europe-west4"
}

variable "zones" {
  description = "zones of the nodes; the cards of a profile must be offered there"
  type        = list(string)
  default     = ["europe-west4-a"]
}

variable "name" {
  description = "begins the name of everything"
  type        = string
  default     = "kintsugi"
}

variable "authorized_networks" {
  description = "networks that reach the cluster's API, by name: a CIDR each"
  type        = map(string)
  default     = {}

  validation {
    condition     = !contains(values(var.authorized_networks), "0.0.0.0/0")
    error_message = "authorized_networks would open the cluster's API to everybody; name your own networks."
  }
}

variable "cpu_pool" {
  description = "nodes for Kubeflow, MLflow, the endpoint and every step but training"
  type = object({
    machine_type = string
    min_nodes    = number
    max_nodes    = number
  })
  default = {
    machine_type = "e2-standard-8"
    min_nodes    = 1
    max_nodes    = 4
  }
}

variable "gpu_pools" {
  description = "node pools by profile (components/gpu_profiles.json); none of their nodes runs while nothing trains"
  type = map(object({
    max_nodes = number
    spot      = optional(bool, false)
  }))
  default = {
    l4 = { max_nodes = 2 }
  }

  validation {
    condition     = length(setsubtract(keys(var.gpu_pools), keys(local.profiles))) == 0
    error_message = "gpu_pools names a profile that does not exist; there are ${join(", ", keys(local.profiles))}."
  }

  validation {
    condition = length(setintersection(keys(var.gpu_pools), keys(local.ended))) == 0
    error_message = join(" ", concat(
      [for name in setintersection(keys(var.gpu_pools), keys(local.ended)) :
      "Compute Engine has offered no ${upper(name)} since ${local.ended[name]}."],
      ["Choose of ${join(", ", local.available)}; l4 is what Compute Engine advises instead.",
      "P100 nodes of your own machines or of another cloud are used as docs/operations.md says."],
    ))
  }

  validation {
    condition     = alltrue([for name, pool in var.gpu_pools : pool.spot || !contains(local.spot_only, name)])
    error_message = "Compute Engine offers single cards of ${join(", ", local.spot_only)} as spot nodes only; set spot = true there."
  }
}

variable "database_tier" {
  description = "machine of the PostgreSQL behind MLflow"
  type        = string
  default     = "db-custom-1-3840"
}

variable "high_availability" {
  description = "whether the database has a stand-by in another zone"
  type        = bool
  default     = false
}

variable "deletion_protection" {
  description = "whether cluster, database and buckets survive a terraform destroy"
  type        = bool
  default     = true
}
