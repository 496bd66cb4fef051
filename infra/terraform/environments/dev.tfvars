# One small cluster; a spot L4 when something trains.
project             = "kintsugi-example"
deletion_protection = false

cpu_pool = {
  machine_type = "e2-standard-4"
  min_nodes    = 1
  max_nodes    = 2
}

gpu_pools = {
  l4 = { max_nodes = 1, spot = true }
}
