"""The graph: prepare, train, evaluate, gate; and for an admitted model register, package, verify, promote."""

# No postponed annotations here: kfp reads them as types.
from kfp import dsl

from components import steps
from components.config import parameter_guide

DESCRIPTION = f"""Trains a picture mender, compares it with the champion and classical methods on pictures
it never saw, and promotes it when it repairs better and its Bento answers alike (gate_mode says whether at once).

{parameter_guide()}"""


@dsl.pipeline(name="kintsugi-training", description=DESCRIPTION, display_name="Kintsugi: train, gate, promote")
def training_pipeline(
    data_source: str = "sample",
    data_classes: str = "auto",
    data_image_size: int = 64,
    data_crop: str = "random",
    data_masks: str = "box,strokes,scratches,text",
    data_mask_source: str = "",
    data_box_size: int = 0,
    data_num_train: int = 2048,
    data_num_val: int = 32,
    data_num_test: int = 96,
    data_max_quarantine: float = 0.05,
    data_reference: str = "",
    data_num_shards: int = 1,
    data_seed: int = 0,
    train_model: str = "residual_unet",
    train_quality: str = "fidelity",
    train_steps: int = 1000,
    train_batch_size: int = 8,
    train_learning_rate: float = 0.002,
    train_adversarial_weight: float = 0.002,
    train_log_interval: int = 50,
    train_sample_interval: int = 250,
    train_checkpoint_interval: float = 60.0,
    train_precision: str = "auto",
    train_compile: str = "auto",
    train_num_processes: int = 1,
    train_seed: int = 0,
    gate_mode: str = "enforce",
    gate_min_ssim: float = 0.9,
    gate_max_mse: float = 0.02,
    gate_family_min_ssim: str = "",
    gate_family_max_mse: str = "",
    gate_min_mask_f1: float = 0.7,
    gate_champion_margin: float = 0.01,
    gate_max_latency_ms: float = 0.0,
    gate_max_size_mb: float = 0.0,
    serve_model_name: str = "kintsugi",
    run_experiment: str = "kintsugi",
    run_name: str = "training",
):
    """Parameters and their defaults are those of ``components.config``; a test holds them equal."""
    plan = steps.plan(**locals())
    planned = plan.outputs

    with dsl.ParallelFor(planned["Output"], name="shards") as order:  # kfp.local passes nothing else into a loop
        read = steps.ingest(order=order)
    prepared = steps.prepare(config=planned["data"], parts=dsl.Collected(read.outputs["part"]))
    dataset, card = prepared.outputs["dataset"], prepared.outputs["card"]

    trained = steps.train(config=planned["train"], run_config=planned["run"], dataset=dataset, card=card)
    trained.set_retry(num_retries=3, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="10m")
    model = trained.outputs["model"]  # a retry goes on from the newest checkpoint

    evaluated = steps.evaluate(config=planned["serve"], dataset=dataset, model=model)
    evaluation = evaluated.outputs["evaluation"]
    gated = steps.gate(config=planned["gate"], evaluation=evaluation)
    decision = gated.outputs["decision"]

    for task in (plan, read, prepared, evaluated, gated):  # they see what no cache key sees
        task.set_caching_options(enable_caching=False)

    with dsl.If(gated.outputs["Output"] == True, name="admitted"):  # noqa: E712 (a comparison kfp records)
        registered = steps.register(config=planned["serve"], model=model, evaluation=evaluation, decision=decision)
        packaged = steps.package(config=planned["serve"], version=registered.output, dataset=dataset)
        verified = steps.verify(config=planned["serve"], bento=packaged.outputs["bento"])

        with dsl.If(verified.output == True, name="verified"), dsl.If(gate_mode != "manual", name="at-once"):  # noqa: E712
            promoted = steps.promote(config=planned["serve"], version=registered.output, decision=decision)

        for task in (registered, packaged, verified, promoted):
            task.set_caching_options(enable_caching=False)
