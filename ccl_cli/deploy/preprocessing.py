"""Description of a model's preprocessing and of the averaging over clips."""

from __future__ import annotations

from typing import Any

from ccl_cli.config.recipe import Clip, Recipe
from ccl_cli.data.clips.samplers import clips_per_video


def describe_preprocessing(recipe: Recipe) -> dict[str, Any]:
    """Describe the steps of ``ccl eval`` from a video file to its scores, for users without ccl."""
    clip, evaluation = recipe.clip, recipe.eval
    views = "clips and crops" if evaluation.crops > 1 else "clips"
    ends = " and both ends of the longer side" if evaluation.crops == 3 else ""
    return {
        "frames": clip.frames,
        "size": clip.size,
        "short_side": clip.short_side,
        "mean": clip.mean,
        "std": clip.std,
        "frame_stride": clip.stride,
        "fps": clip.fps,
        "sampling": f"{clip.frames} frames, {_frames(clip)}",
        "decoding": f"frames scaled down to a short side of {clip.short_side} pixels, if they are larger",
        "crop": f"short side resized to {clip.size} pixels (bilinear, antialiasing); then the centre{ends}",
        "crops": evaluation.crops,
        "clips": clips_per_video(clip, evaluation),
        "stride": evaluation.stride,
        "video": f"{_clips(recipe)}; mean of softmax(logits) and mean of features over {views}",
    }


def _frames(clip: Clip) -> str:
    if clip.sampling == "segments":
        return f"one from each of {clip.frames} equal segments of the video"
    if clip.fps is not None:
        return f"{clip.fps:g} per second, the nearest by time; a short video repeats"
    apart = f"{clip.stride} apart in the file" if clip.stride > 1 else "consecutive at the file's own rate"
    return f"{apart}; a short video repeats"


def _clips(recipe: Recipe) -> str:
    clips = clips_per_video(recipe.clip, recipe.eval)
    if not clips:
        return f"windows start every {recipe.eval.stride} frames, the last one ends with the video"
    if recipe.clip.sampling == "segments":
        return f"{clips} clip(s), frames in the centre of the k-th of {clips} parts of each segment"
    if clips == 1:
        return "the clip in the centre of the video"
    return f"{clips} clips, the first at the start and the last at the end of the video, evenly spread"
