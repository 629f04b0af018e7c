"""Export: the samples of a run as images that other tools read.

Knows the layout of ADM's evaluator and files of pictures. Refuses to decode codes with another tokenizer than the
run's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from orderbench.models.codec import Codec
from orderbench.orders import BenchError, Lattice, parse_lattice
from orderbench.orders.files import check_folder, write_whole
from orderbench.runs.device import choose_device
from orderbench.runs.record import ELSEWHERE, Run, file_name, write_arrays
from orderbench.runs.samples import codes_of_arrays
from orderbench.runs.schema import QualityTrial
from orderbench.runs.spec import RunSpec
from orderbench.runs.subject import TOKENIZER, load_tokenizer, named_file, to_pixels


def export_run(
    run: Run,
    out: Path,
    *,
    npz: bool,
    png: bool,
    device: str = "auto",
    each: Callable[[list[QualityTrial]], Iterable[QualityTrial]] = iter,
) -> list[Path]:
    """Write the samples of every arm, seed and setting; the files, or folders of pictures, that were written.

    npz: ARM-SEED.npz with `arr_0`, (N, h, w, 3) uint8, and `arr_1`, (N,) int64 labels, as ADM's evaluator reads them
    (guided-diffusion, evaluations/); grey images are repeated to three channels. png: a folder of NNNNNN-LABEL.png.

    Raises BenchError for a run without samples, and where the run's tokenizer is not here.
    """
    trials = run.done("quality")
    if not trials:
        raise BenchError(f"'{run.folder}' holds no samples; measure quality first, as in bench run --only quality")
    chosen = choose_device(device)
    spec = RunSpec.from_json(run.about["config"], "the run's configuration")
    arms = {arm["name"]: arm["model"] for arm in run.about["arms"]}
    codecs: dict[str, tuple[Codec, Lattice]] = {}
    for number, (model, said) in enumerate(run.about["models"].items()):
        if model not in {arms[trial["arm"]] for trial in trials}:
            continue
        own = next(iter(run.about["models"]))
        file = named_file(spec.tokenizer, model, number == 0) or named_file(spec.tokenizer, own, True)
        codec, about = load_tokenizer(file or TOKENIZER, chosen)
        if about["sha256"] != said["tokenizer"].get("sha256"):
            raise BenchError(
                f"the tokenizer {about['name']} here is not the one of the run (the checksums differ); export where "
                f"the run was made, or with the orderbench that made it"
            )
        codecs[model] = codec, parse_lattice(said["lattice"])
    written = []
    for trial in each(trials):
        arrays = run.arrays(trial["trial"], "tokens")
        codec, lattice = codecs[arms[trial["arm"]]]
        images_Nchw = to_pixels(codec, torch.from_numpy(codes_of_arrays(arrays).astype(np.int64)), lattice, chosen)
        images_Nhwc = images_Nchw.permute(0, 2, 3, 1).numpy()
        name = file_name(trial["arm"], "" if trial["setting"] == "fixed" else trial["setting"], f"s{trial['seed']}")
        if npz:
            colour = np.repeat(images_Nhwc, 3, axis=-1) if images_Nhwc.shape[-1] == 1 else images_Nhwc
            written.append(out / f"{name}.npz")
            write_arrays(written[-1], {"arr_0": colour, "arr_1": arrays["labels_N"].astype(np.int64)}, ELSEWHERE)
        if png:
            written.append(out / name)
            write_pictures(written[-1], images_Nhwc, arrays["labels_N"])
    return written


def write_pictures(folder: Path, images_Nhwc: np.ndarray, labels_N: np.ndarray) -> None:
    """One file a picture, NNNNNN-LABEL.png; BenchError where that is not possible, or would be somewhere else."""
    from PIL import Image

    try:
        check_folder(folder.parent, folder.name)
    except OSError as problem:
        raise BenchError(
            f"pictures could not be written to '{folder.parent}': {problem.strerror}; name another place, as in --out "
            f"pictures"
        ) from problem
    for index, (image, label) in enumerate(zip(images_Nhwc, labels_N, strict=True)):
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        write_whole(
            folder / f"{index:06d}-{label}.png",
            picture.save,
            error=lambda reason: BenchError(
                f"pictures could not be written to '{folder}': {reason}; name another place"
            ),
            durable=False,
        )
