"""Who uses the result: the HTTP service around the admitted generator. Loads no torch, mlflow or kfp."""
