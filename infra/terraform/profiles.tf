# The profiles that the pipeline sends trainings to; it reads the same file.
locals {
  profiles  = jsondecode(file("${path.module}/../../components/gpu_profiles.json"))
  ended     = { for name, profile in local.profiles : name => profile.ended if profile.ended != "" }
  available = sort([for name, profile in local.profiles : name if profile.ended == ""])
  spot_only = [for name, profile in local.profiles : name if profile.spot_only]
}
