"""The graph: prepare, train, evaluate, gate; and for an admitted model register, package, verify, promote."""

# No postponed annotations here: kfp reads them as types.
from kfp import dsl

from components import steps
from components.form import guide
from pipelines.pods import furnish, send_to_gpus

DESCRIPTION = f"""Trains a picture mender, compares it with the champion and classical methods on pictures
it never saw, and promotes it when it repairs better and its Bento answers alike (gate_mode says whether at once).
Whether the cluster has the cards that run_gpu names is the first thing to look at.

{guide()}"""

DAY = 24 * 3600
LIMITS = dsl.PipelineConfig(active_deadline_seconds=3 * DAY, ttl_seconds_after_finished=14 * DAY)


def release(config, dataset, model, evaluation, decision, volume):
    """What becomes of an admitted model: registered, packaged, verified, promoted."""
    registered = furnish(
        steps.register(
            config=config, model=model, evaluation=evaluation, decision=decision,
            pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        ), volume,
    )  # fmt: skip
    version = registered.outputs["Output"]
    packaged = furnish(steps.package(config=config, version=version, dataset=dataset), volume)
    verified = furnish(steps.verify(config=config, bento=packaged.outputs["bento"]), volume)
    with dsl.If(verified.outputs["Output"] == True, name="verified"):  # noqa: E712
        promoted = furnish(steps.promote(config=config, version=version), volume)
    for task in (registered, packaged, verified, promoted):
        task.set_caching_options(enable_caching=False)  # they see what no cache key sees


@dsl.pipeline(
    name="kintsugi-training",
    description=DESCRIPTION,
    display_name="Kintsugi: train, gate, promote",
    pipeline_config=LIMITS,
)
def training_pipeline(
    data_source: str = "sample",
    data_classes: str = "auto",
    data_image_size: int = 64,
    data_masks: str = "box,strokes,scratches,text",
    train_model: str = "residual_unet",
    train_steps: int = 1000,
    train_batch_size: int = 8,
    train_learning_rate: float = 0.002,
    train_num_processes: int = 1,
    train_num_nodes: int = 1,
    gate_mode: str = "enforce",
    gate_min_ssim: float = 0.9,
    gate_max_mse: float = 0.02,
    serve_model_name: str = "kintsugi",
    run_gpu: str = "p100",
    run_spot: bool = False,
    run_volume: str = "kintsugi",
    run_webhook: str = "",
    run_preset: str = "sample",
    run_mode: str = "standard",
    run_overrides: str = "",
):
    """The fields of the run form and their defaults are those of ``components.form``; a test holds them equal."""
    form, run = locals().copy(), {"webhook": run_webhook, "run_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
    images = {"cpu_image": steps.IMAGE, "gpu_image": steps.GPU_IMAGE}
    plan = furnish(steps.plan(**form, **images, run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER))
    planned = plan.outputs

    # A cluster fails loops inside an exit handler, and kfp takes nothing collected into one: these tell by themselves.
    with dsl.ParallelFor(planned["Output"]) as order:
        read = furnish(steps.ingest(order=order, **run), run_volume)
    parts = dsl.Collected(read.outputs["part"])
    prepared = furnish(steps.prepare(config=planned["data"], parts=parts, **run), run_volume)
    dataset, card = prepared.outputs["dataset"], prepared.outputs["card"]

    told = furnish(steps.notify(**run)).set_caching_options(enable_caching=False)
    with dsl.ExitHandler(told):  # no name: servers look up a group whose end or parts are wanted by its own
        trained = furnish(
            steps.train(config=planned["train"], run_config=planned["run"], dataset=dataset, card=card), run_volume
        )
        send_to_gpus(trained, planned)
        model = trained.outputs["model"]

        evaluated = furnish(steps.evaluate(config=planned["serve"], dataset=dataset, model=model), run_volume)
        evaluation = evaluated.outputs["evaluation"]
        gated = furnish(steps.gate(config=planned["gate"], evaluation=evaluation), run_volume)
        decision = gated.outputs["decision"]

        with dsl.If(gated.outputs["Output"] == True, name="admitted"):  # noqa: E712 (a comparison kfp records)
            release(planned["serve"], dataset, model, evaluation, decision, run_volume)

    for task in (plan, read, prepared, evaluated, gated):
        task.set_caching_options(enable_caching=False)  # as in release
