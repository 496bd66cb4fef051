# Three zones, a database with a stand-by, trainings on L4 and on A100.
project           = "kintsugi-example"
zones             = ["europe-west4-a", "europe-west4-b", "europe-west4-c"]
high_availability = true
database_tier     = "db-custom-2-7680"

authorized_networks = {
  office = "203.0.113.0/24"
}

cpu_pool = {
  machine_type = "e2-standard-8"
  min_nodes    = 1
  max_nodes    = 6
}

gpu_pools = {
  l4   = { max_nodes = 4 }
  a100 = { max_nodes = 2, spot = true }
}
