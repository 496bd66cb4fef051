"""``kintsugi inpaint``: which pictures are to be repaired under which masks to which files, and doing it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from components.client import InpaintClient
from components.config import ConfigError
from components.inpainting.images import check_pair, encode_png, read_image, read_mask
from components.manifest import write_file
from components.progress import explain

_FORMATS = {".png": "png", ".webp": "webp", ".jpg": "jpeg", ".jpeg": "jpeg"}
_SUFFIXES = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}
_CONVERTED = (".bmp", ".tif", ".tiff")  # what the endpoint does not take
_PICTURES = (*_FORMATS, *_CONVERTED)


@dataclass(frozen=True)
class Job:
    """One picture to repair; ``mask`` is ``None`` where none is given, ``problem`` says what is amiss already."""

    image: Path
    mask: Path | None
    output: Path
    problem: str = ""


@dataclass(frozen=True)
class Wishes:
    """How to repair: the endpoint's options but for the format, which goes by the output's name."""

    quality: int = 90
    grow_mask: int = 0
    feather: int = 0
    blind: bool = False  # look for damage in pictures that come without a mask and have no transparent part

    def options(self, job: Job) -> dict[str, str | int]:
        """The options of one request."""
        kind = _FORMATS[job.output.suffix.lower()]
        return {"format": kind, "quality": self.quality, "grow_mask": self.grow_mask, "feather": self.feather}


def plan_jobs(pictures: Sequence[Path], mask: Path | None, output: Path, format: str = "") -> list[Job]:
    """Find the pictures of files and folders, their masks, and where each repair goes.

    ``mask`` is a file for all of them, or a folder that holds masks of the pictures' names. Raises ``ConfigError``
    where there is nothing to repair, and where a file would be written over a picture, a mask, or another repair.
    """
    many = len(pictures) > 1 or pictures[0].is_dir() or output.is_dir() or not output.suffix
    if not many:
        return _apart([Job(pictures[0], _one_mask(mask), _named(output, format))])
    if output.exists() and not output.is_dir():
        raise ConfigError(f"{output} is a file, and several repairs need a folder; choose another -o")
    inside = [folder.resolve() for folder in (output, mask) if folder and folder.is_dir()]
    jobs = []
    for name, image in _found(pictures, inside):
        target = output / name.with_suffix(_suffix(image, format))
        found = _mask_of(name, mask)
        lacks = mask is not None and found is None
        jobs.append(
            Job(image, found, target, f"{mask} holds no mask of the name {name.with_suffix('')}" if lacks else "")
        )
    if not jobs:
        raise ConfigError(f"no picture in {', '.join(map(str, pictures))}; known are {', '.join(_PICTURES)}")
    return _apart(jobs)


def check_first(job: Job) -> None:
    """Look at a single picture and its mask before a server is started for them. Raises ``ImageError``."""
    image = read_image(job.image)
    if job.mask:
        check_pair(image, read_mask(job.mask))


def repair_all(
    client: InpaintClient, jobs: Sequence[Job], wishes: Wishes, threads: int, console: Console
) -> list[tuple[Job, str]]:
    """Repair every picture, several at a time, under a progress bar; returns those that failed, and why."""

    def attempt(job: Job) -> str:
        try:
            _repair(client, job, wishes)
        except (ValueError, OSError) as error:
            return explain(error)
        return ""

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    failed = []
    hidden = not console.is_terminal
    with (
        Progress(*columns, console=console, transient=True, disable=hidden) as bar,
        ThreadPoolExecutor(threads) as pool,
    ):
        task = bar.add_task("repair", total=len(jobs))
        try:
            for job, reason in zip(jobs, pool.map(attempt, jobs), strict=True):
                bar.advance(task)
                if reason:
                    failed.append((job, reason))
                    console.print(f"{job.image}: {reason}", markup=False, highlight=False, soft_wrap=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def _repair(client: InpaintClient, job: Job, wishes: Wishes) -> None:
    if job.problem:
        raise ConfigError(job.problem)
    image = _sendable(job.image, lambda path: encode_png(read_image(path)))
    mask = _sendable(job.mask, lambda path: encode_png(read_mask(path) * 255)) if job.mask else None
    repaired = client.inpaint(image, mask, **wishes.options(job))
    if repaired.mask_source == "found" and not wishes.blind:
        raise ConfigError("it has no transparent part; give its mask by --mask, or --blind to look for damage")
    write_file(job.output, repaired.content)


def _sendable(path: Path, convert: Callable[[Path], bytes]) -> bytes:
    return convert(path) if path.suffix.lower() in _CONVERTED else path.read_bytes()


def _found(pictures: Sequence[Path], inside: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Every picture with the name that it keeps below the output; what lies in folders ``inside`` stays out."""
    for start in pictures:
        if not start.is_dir():
            yield Path(start.name), start
            continue
        root = start.resolve()
        below = [folder for folder in inside if folder != root and folder.is_relative_to(root)]
        for path in sorted(start.rglob("*")):
            ours = any(path.resolve().is_relative_to(folder) for folder in below)
            if path.suffix.lower() in _PICTURES and path.is_file() and not ours:
                yield path.relative_to(start), path


def _one_mask(mask: Path | None) -> Path | None:
    if mask is not None and mask.is_dir():
        raise ConfigError(f"{mask} is a folder; give the mask of one picture as a file")
    return mask


def _mask_of(name: Path, mask: Path | None) -> Path | None:
    """The mask of a picture: the one for all, or the one of its name in a folder, of whatever format."""
    if mask is None or not mask.is_dir():
        return mask
    candidates = [mask / name, *(mask / name.with_suffix(suffix) for suffix in _PICTURES)]
    return next((path for path in candidates if path.is_file()), None)


def _suffix(image: Path, format: str) -> str:
    """The suffix of a repair's file: of the format, or the picture's own where it is to stay the same."""
    if format == "same":
        return image.suffix if image.suffix.lower() in _FORMATS else ".png"
    return _SUFFIXES[format or "png"]


def _named(output: Path, format: str) -> Path:
    """A repair's file; its name says its format."""
    kind = _FORMATS.get(output.suffix.lower())
    if kind is None or format not in ("", "same", kind):
        raise ConfigError(f"cannot write the repair to {output}; name a {(format or 'png').upper()} file, e.g. -o out"
                          + _SUFFIXES.get(format, ".png"))  # fmt: skip
    return output


def _apart(jobs: list[Job]) -> list[Job]:
    """The jobs, if none of them writes over a picture, a mask, or another's repair; else raise ``ConfigError``."""
    read = {path.resolve() for job in jobs for path in (job.image, job.mask) if path}
    for output, count in Counter(job.output.resolve() for job in jobs).items():
        if output in read:
            raise ConfigError(f"{output} is a picture or mask to read, and is not written over; choose another -o")
        if count > 1:
            raise ConfigError(f"{count} pictures would all be written to {output}; use --format same, or rename them")
    return jobs
