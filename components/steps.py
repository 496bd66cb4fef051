"""The steps as Kubeflow components: each body imports its step and calls it.

kfp copies these bodies into the compiled pipeline, so they see nothing of this file.
"""

# No postponed annotations here: kfp reads them as types.
from typing import NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output

from components import __version__

IMAGE, GPU_IMAGE = f"kintsugi/cpu:{__version__}", f"kintsugi/gpu:{__version__}"  # as 'make images' names them


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def plan(
    data_source: str, data_classes: str, data_image_size: int, data_masks: str,
    train_model: str, train_steps: int, train_batch_size: int, train_learning_rate: float, train_num_processes: int,
    train_num_nodes: int,
    gate_mode: str, gate_min_ssim: float, gate_max_mse: float, serve_model_name: str,
    run_gpu: str, run_spot: bool, run_volume: str, run_webhook: str, run_preset: str, run_mode: str, run_overrides: str,
    run_id: str, cpu_image: str, gpu_image: str, report: Output[HTML],
) -> NamedTuple("Plan", [("data", str), ("train", str), ("gate", str), ("serve", str), ("run", str),
                         ("node_selector", dict), ("tolerations", list), ("accelerator_limit", str), ("image", str),
                         ("Output", list)]):  # fmt: skip
    """Validate all parameters together. Orders are called Output, the one name that kfp.local loops over."""
    form = {k: v for k, v in locals().items() if k not in ("run_id", "cpu_image", "gpu_image", "report")}
    from pathlib import Path
    from components import config as c, notify, plan

    with notify.telling("plan", run_webhook, run_id, c.Settings()):
        return plan.plan(form, cpu_image, gpu_image, Path(report.path))


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingest(order: str, webhook: str, run_id: str, part: Output[Dataset], report: Output[HTML]):
    """Read and crop one shard of the source's pictures."""
    from pathlib import Path
    from components import config as c, notify, prepare

    with notify.telling("ingest", webhook, run_id, c.Settings()):
        prepare.ingest(c.ReadOrder.model_validate_json(order), Path(part.path), Path(report.path), c.Settings())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def prepare(
    config: str, webhook: str, run_id: str, parts: Input[list[Dataset]], dataset: Output[Dataset], card: Output[HTML],
):  # fmt: skip
    """Merge the shards into a dataset with fixed evaluation holes."""
    from pathlib import Path
    from components import config as c, notify, prepare

    folders, data = [Path(part.path) for part in parts], c.DataConfig.model_validate_json(config)
    with notify.telling("prepare", webhook, run_id, c.Settings()):
        prepare.prepare(data, folders, Path(dataset.path), Path(card.path), c.Settings())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(
    config: str, run_config: str, dataset: Input[Dataset], card: Input[HTML],
    model: Output[Model], report: Output[HTML], metrics: Output[Metrics],
):  # fmt: skip
    """Train the generator."""
    from pathlib import Path
    from components import config as c, manifest, train

    settings = c.TrainConfig.model_validate_json(config), c.RunConfig.model_validate_json(run_config)
    paths = (Path(artifact.path) for artifact in (dataset, card, model, report))
    metrics.metadata.update(train.train(*settings, *paths, c.Settings()))
    manifest.write_json(Path(metrics.path), metrics.metadata)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    config: str, dataset: Input[Dataset], model: Input[Model],
    evaluation: Output[Artifact], report: Output[HTML], metrics: Output[Metrics],
):  # fmt: skip
    """Score the model beside the champion, classical methods and doing nothing."""
    from pathlib import Path
    from components import config as c, evaluate, manifest

    paths = (Path(artifact.path) for artifact in (dataset, model, evaluation, report))
    metrics.metadata.update(evaluate.evaluate(c.ServeConfig.model_validate_json(config), *paths, c.Settings()))
    manifest.write_json(Path(metrics.path), metrics.metadata)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def gate(config: str, evaluation: Input[Artifact], decision: Output[Artifact], report: Output[HTML]) -> bool:
    """Decide whether the model is admitted."""
    from pathlib import Path
    from components import config as c, gate

    paths = (Path(artifact.path) for artifact in (evaluation, decision, report))
    return gate.gate(c.GatePolicy.model_validate_json(config), *paths, c.Settings())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register(
    config: str, model: Input[Model], evaluation: Input[Artifact], decision: Input[Artifact], pipeline_run: str,
    report: Output[HTML],
) -> str:  # fmt: skip
    """Register the admitted model as challenger."""
    from pathlib import Path
    from components import config as c, register

    paths = (Path(artifact.path) for artifact in (model, evaluation, decision))
    serve = c.ServeConfig.model_validate_json(config)
    return register.register(serve, *paths, pipeline_run, Path(report.path), c.Settings())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def package(config: str, version: str, dataset: Input[Dataset], bento: Output[Artifact], report: Output[HTML]):
    """Prove that the export of the registered version repairs as the network did, and build a Bento around it."""
    from pathlib import Path
    from components import config as c, package

    paths = (Path(artifact.path) for artifact in (dataset, bento, report))
    package.package(c.ServeConfig.model_validate_json(config), version, *paths, c.Settings())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def verify(config: str, bento: Input[Artifact], report: Output[HTML]) -> bool:
    """Start the Bento and compare its repairs with the trainer's own."""
    from pathlib import Path
    from components import config as c, verify

    paths = (Path(artifact.path) for artifact in (bento, report))
    return verify.verify(c.ServeConfig.model_validate_json(config), *paths, c.Settings())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def promote(config: str, version: str, report: Output[HTML]) -> str:
    """Make the verified version champion, unless the gate leaves that to a person."""
    from pathlib import Path
    from components import config as c, promote

    return promote.promote(c.ServeConfig.model_validate_json(config), version, Path(report.path), c.Settings())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def notify(status: dsl.PipelineTaskFinalStatus, webhook: str, run_id: str):
    """Tell the webhook, where one is set, how the run ended."""
    from components import config as c, notify

    notify.notify(status.state, webhook, run_id, c.Settings())
