"""The steps as Kubeflow components: each body imports its step and calls it.

kfp copies these bodies into the compiled pipeline, so they see nothing of this file.
"""

# No postponed annotations here: kfp reads them as types.
from typing import NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output

from components import __version__

IMAGE = f"kintsugi-python:{__version__}"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def plan(
    data_source: str, data_classes: str, data_image_size: int, data_crop: str, data_masks: str,
    data_mask_source: str, data_box_size: int, data_num_train: int, data_num_val: int, data_num_test: int,
    data_max_quarantine: float, data_reference: str, data_num_shards: int, data_seed: int,
    train_model: str, train_quality: str, train_steps: int, train_batch_size: int, train_learning_rate: float,
    train_adversarial_weight: float, train_log_interval: int, train_sample_interval: int,
    train_checkpoint_interval: float, train_precision: str, train_compile: str, train_num_processes: int,
    train_seed: int,
    gate_mode: str, gate_min_ssim: float, gate_max_mse: float, gate_family_min_ssim: str, gate_family_max_mse: str,
    gate_min_mask_f1: float, gate_champion_margin: float, gate_max_latency_ms: float, gate_max_size_mb: float,
    serve_model_name: str, run_experiment: str, run_name: str,
) -> NamedTuple("Plan", [("data", str), ("train", str), ("gate", str), ("serve", str), ("run", str),
                           ("Output", list)]):  # fmt: skip
    """Validate all parameters together. Orders are called Output, the one name that kfp.local loops over."""
    parameters = locals().copy()
    from components.plan import plan

    return plan(parameters)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingest(order: str, part: Output[Dataset]):
    """Read and crop one shard of the source's pictures."""
    from pathlib import Path
    from components import config as c, prepare

    prepare.ingest(c.ReadOrder.model_validate_json(order), Path(part.path), c.Settings())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def prepare(config: str, parts: Input[list[Dataset]], dataset: Output[Dataset], card: Output[HTML]):
    """Merge the shards into a dataset with fixed evaluation holes."""
    from pathlib import Path
    from components import config as c, prepare

    folders = [Path(part.path) for part in parts]
    data = c.DataConfig.model_validate_json(config)
    prepare.prepare(data, folders, Path(dataset.path), Path(card.path), c.Settings())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(
    config: str, run_config: str, dataset: Input[Dataset], card: Input[HTML],
    model: Output[Model], metrics: Output[Metrics],
):  # fmt: skip
    """Train the generator."""
    from pathlib import Path
    from components import config as c, manifest, train

    settings = c.TrainConfig.model_validate_json(config), c.RunConfig.model_validate_json(run_config)
    paths = (Path(artifact.path) for artifact in (dataset, card, model))
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
    return gate.gate(c.GateConfig.model_validate_json(config), *paths, c.Settings())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register(config: str, model: Input[Model], evaluation: Input[Artifact], decision: Input[Artifact]) -> str:
    """Register the admitted model as challenger."""
    from pathlib import Path
    from components import config as c, register

    paths = (Path(artifact.path) for artifact in (model, evaluation, decision))
    return register.register(c.ServeConfig.model_validate_json(config), *paths, c.Settings())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def package(config: str, version: str, dataset: Input[Dataset], bento: Output[Artifact]):
    """Build a Bento around the export of the registered version."""
    from pathlib import Path
    from components import config as c, package

    serve = c.ServeConfig.model_validate_json(config)
    package.package(serve, version, Path(dataset.path), Path(bento.path), c.Settings())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def verify(config: str, bento: Input[Artifact]) -> bool:
    """Start the Bento and compare its repairs with the trainer's own."""
    from pathlib import Path
    from components import config as c, verify

    return verify.verify(c.ServeConfig.model_validate_json(config), Path(bento.path), c.Settings())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def promote(config: str, version: str, decision: Input[Artifact]) -> str:
    """Make the verified version champion."""
    from pathlib import Path
    from components import config as c, promote

    return promote.promote(c.ServeConfig.model_validate_json(config), version, Path(decision.path), c.Settings())
