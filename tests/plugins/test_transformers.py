"""Networks of transformers as teachers: tiny ones of every architecture, against the library's own outputs."""

from __future__ import annotations

import json
import shutil
import socket
import sys

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from ccl_cli.config.spec import parse_model
from ccl_cli.errors import PluginError, WeightsError
from ccl_cli.testing import check_teacher
from ccl_cli.testing import teacher as kit
from ccl_transformers.teacher import HubTeacher
from tests.plugins import hub_models
from tests.plugins.windows import make_window

SOUND = torch.sin(torch.arange(60_000) * torch.linspace(0.05, 0.2, 60_000)) / 2
CLASSES = ("MoveRight", "move_down")
SENTENCES = ["a video of Move Right", "a video of move down"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The folder of a tiny model by its name, written once."""
    root, written = tmp_path_factory.mktemp("models"), {}

    def model(name):
        if name not in written:
            written[name] = hub_models.write_model(root / name, name)
        return written[name]

    return model


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    connect = socket.socket.connect

    def connect_locally(self, address):
        assert self.family == socket.AF_UNIX, "somebody asks the network"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_locally)


def build(modality, folder, options=""):
    teacher = HubTeacher.from_spec(parse_model(f"{modality}:hf@{folder}{options}"))
    teacher.use_classes(CLASSES)
    return teacher


def batch(teacher, count=2):
    windows = [make_window(sound=SOUND[5000 * number :], training=False) for number in range(count)]
    return torch.stack([teacher.preprocess(window) for window in windows])


# ---- the embedding is the library's own


def processed(modality, name):
    """What the model's processor makes of the same window, called as transformers' documentation does."""
    processor, window = hub_models.make_processor(name), make_window(training=False)
    if modality == "image":
        return processor(images=window.frames[4].numpy(), return_tensors="pt")["pixel_values"]
    if modality == "video":
        frames = list(window.frames[[0, 2, 5, 7]].numpy())
        made = (
            processor(images=frames, return_tensors="pt")
            if name == "xclip"
            else processor(frames, return_tensors="pt")
        )
        value = next(iter(made.values()))
        return value if value.dim() == 5 else value[None]
    rate = processor.sampling_rate
    sound = SOUND[: int(rate * (0.32 if name.startswith("ast") else 1))]
    return processor(sound.numpy(), sampling_rate=rate, return_tensors="pt")[processor.model_input_names[0]]


def tokens_of(model, x):
    return model(x).last_hidden_state


def mean(first=0):
    return lambda model, x: tokens_of(model, x)[:, first:].mean(1)


def first(model, x):
    return tokens_of(model, x)[:, 0]


def pooler(model, x):
    return model(x).pooler_output


def features(kind, *more):
    return lambda model, x: getattr(model, f"get_{kind}_features")(x, *more).pooler_output


EMBEDDINGS = [
    ("video", "videomae", "", "VideoMAEModel", mean()),
    ("video", "vjepa2", "", "VJEPA2Model", lambda model, x: model.get_vision_features(x).mean(1)),
    ("video", "timesformer", "", "TimesformerModel", first),
    ("video", "timesformer", "pool=mean", "TimesformerModel", mean(1)),
    ("video", "xclip", "", "XCLIPModel", features("video")),
    ("image", "dinov2", "", "Dinov2Model", pooler),
    ("image", "dinov2", "pool=mean", "Dinov2Model", mean(1)),
    ("image", "dinov2-registers", "pool=mean", "Dinov2WithRegistersModel", mean(3)),
    ("image", "dinov3", "", "DINOv3ViTModel", pooler),
    ("image", "dinov3", "pool=mean", "DINOv3ViTModel", mean(3)),
    ("image", "vit", "", "ViTModel", first),
    ("image", "vit-classes", "pool=cls", "ViTModel", first),
    ("image", "clip", "", "CLIPModel", features("image")),
    ("image", "clip", "pool=mean", "CLIPVisionModel", mean(1)),
    ("image", "siglip", "", "SiglipModel", features("image")),
    # Of an architecture that is not known here the user says how it embeds.
    ("image", "swin", "pool=mean", "SwinModel", mean()),
    ("audio", "ast", "", "ASTModel", pooler),
    ("audio", "clap", "", "ClapModel", features("audio")),
    ("audio", "clap-fused", "", "ClapModel", features("audio", torch.tensor([[False]]))),
    ("audio", "wav2vec2", "seconds=1", "Wav2Vec2Model", mean()),
    ("audio", "hubert", "seconds=1", "HubertModel", mean()),
    ("audio", "wavlm", "seconds=1", "WavLMModel", mean()),
    ("audio", "whisper", "", "WhisperModel", lambda model, x: mean()(model.get_encoder(), x)),
]


@pytest.mark.parametrize(("modality", "name", "options", "own_class", "own"), EMBEDDINGS)
def test_embeddings_are_those_of_the_library(models, modality, name, options, own_class, own):
    teacher = build(modality, models(name), f"?{options}" if options else "")
    model = getattr(hf, own_class).from_pretrained(models(name)).eval()
    with torch.inference_mode():
        expected = own(model, processed(modality, name))
        made = teacher(batch(teacher, 1))
    assert made.shape == (1, teacher.dim)
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 1e-3


@pytest.mark.parametrize(
    ("modality", "name", "own_class"),
    [
        ("video", "videomae-classes", "VideoMAEForVideoClassification"),
        ("video", "vjepa2-classes", "VJEPA2ForVideoClassification"),
        ("image", "dinov2-classes", "Dinov2ForImageClassification"),
        ("image", "vit-classes", "ViTForImageClassification"),
        ("audio", "ast-classes", "ASTForAudioClassification"),
        ("audio", "whisper-classes", "WhisperForAudioClassification"),
        ("audio", "wav2vec2-classes", "Wav2Vec2ForSequenceClassification"),
    ],
)
def test_of_a_classifier_it_is_what_the_last_layer_sees(models, modality, name, own_class):
    teacher = build(modality, models(name), "?seconds=1" if name.startswith("wav2vec2") else "")
    model = getattr(hf, own_class).from_pretrained(models(name)).eval()
    with torch.inference_mode():
        scores = model.classifier(teacher(batch(teacher, 1)))
        expected = model(processed(modality, name)).logits
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "own_class", "own"),
    [
        ("clip", "CLIPModel", lambda m, x: m.get_text_features(**x).pooler_output),
        ("siglip", "SiglipModel", lambda m, x: m.get_text_features(**x).pooler_output),
        ("clap", "ClapModel", lambda m, x: m.get_text_features(**x).pooler_output),
        ("bert", "BertModel", lambda m, x: masked_mean(m(**x).last_hidden_state, x["attention_mask"])),
        ("t5", "T5EncoderModel", lambda m, x: masked_mean(m(**x).last_hidden_state, x["attention_mask"])),
    ],
)
def test_class_names_are_embedded_as_the_library_does(models, name, own_class, own):
    teacher = build("text", models(name))
    assert teacher.sees_label
    tokenizer = hub_models.make_tokenizer(name)
    padding = "max_length" if name == "siglip" else True
    model = getattr(hf, own_class).from_pretrained(models(name)).eval()
    tokens = tokenizer(SENTENCES, padding=padding, return_tensors="pt")
    with torch.inference_mode():
        expected = own(model, {key: tokens[key] for key in tokens if key != "token_type_ids"})
        made = teacher(torch.tensor([[2], [1], [0]]))
    torch.testing.assert_close(made, torch.stack([expected[1], expected[0], 0 * expected[0]]))


def masked_mean(tokens, mask):
    return torch.stack([each[kept == 1].mean(0) for each, kept in zip(tokens, mask, strict=True)])


# ---- the contract

FAMILIES = [
    *(("video", name) for name in ("videomae", "vjepa2", "timesformer", "xclip")),
    *(("image", name) for name in ("dinov2", "vit", "clip", "siglip")),
    *(("audio", name) for name in ("ast", "clap", "clap-fused", "wav2vec2", "hubert", "whisper")),
    *(("text", name) for name in ("bert", "clip")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("modality", "name"), FAMILIES)
def test_the_conformance_kit(models, modality, name, monkeypatch):
    if name != "clap":  # one of them is tried in a process of its own, which takes seconds to start
        monkeypatch.setattr(kit, "run_each", lambda jobs, work, **_: ((job, work(job)) for job in jobs))
    assert not check_teacher(build(modality, models(name))).failures


def test_random_frames_in_training_and_none_of_sound_is_missing(models):
    image = build("image", models("vit")).preprocess
    drawn = [image(make_window(seed=seed)) for seed in range(8)]
    assert any(not torch.equal(drawn[0], each) for each in drawn)
    assert image.views == "frame"
    assert build("video", models("videomae")).preprocess.views == "clip"
    sound = build("audio", models("ast")).preprocess
    assert sound.views == "track"
    assert sound(make_window(sound=None)) is None
    for shortest in (1, 50):  # samples
        assert sound(make_window(sound=SOUND[:shortest])).isfinite().all()


def test_the_sound_is_asked_for_at_the_rate_and_length_of_the_model(models):
    asked = {}
    for name, options in (("ast", ""), ("clap", ""), ("whisper", "?seconds=0.5"), ("hubert", "?seconds=2")):
        window = make_window(sound=SOUND)
        window.audio = lambda rate, seconds, name=name: asked.setdefault(name, (rate, seconds)) and SOUND
        build("audio", models(name), options).preprocess(window)
    assert asked == {
        "ast": (16_000, 0.32),
        "clap": (8000, 1.0),
        "whisper": (16_000, 0.5),
        "hubert": (16_000, 2.0),
    }


OWN_CODE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

class Config(PretrainedConfig):
    model_type = "own"

class Model(PreTrainedModel):
    config_class, main_input_name = Config, "pixel_values"

    def __init__(self, config):
        super().__init__(config)
        self.layer = torch.nn.Linear(3, config.hidden_size)
        self.post_init()

    def forward(self, pixel_values):
        return BaseModelOutput(self.layer(pixel_values.mean(dim=(2, 3)))[:, None])
"""


@pytest.fixture
def own_model(models, tmp_path, monkeypatch):
    """A model of an architecture that only its own code knows."""
    monkeypatch.setenv("CCL_TRUST_REMOTE_CODE", "1")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", sys.path[:])
    folder = shutil.copytree(models("vit"), tmp_path / "own")
    auto_map = {"AutoConfig": "code.Config", "AutoModel": "code.Model"}
    config = {"model_type": "own", "hidden_size": 4, "architectures": ["Model"], "auto_map": auto_map}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(OWN_CODE)
    save_file({"layer.weight": torch.ones(4, 3), "layer.bias": torch.zeros(4)}, folder / "model.safetensors")
    return folder


def test_code_beside_a_model_runs_where_it_is_trusted_and_is_in_the_fingerprint(own_model):
    with pytest.raises(WeightsError, match=r"needs its own Python code.*trust_remote_code=true"):
        build("image", own_model, "?pool=mean")
    trusted = "?pool=mean&trust_remote_code=true"
    teacher = build("image", own_model, trusted)
    x = batch(teacher)
    torch.testing.assert_close(teacher(x), x.mean(dim=(2, 3)).sum(dim=1, keepdim=True).expand(-1, 4))
    assert "trust_remote_code=true" in teacher.variant
    (own_model / "code.py").write_text(OWN_CODE.replace("mean(dim=(2, 3))", "amax(dim=(2, 3))"))
    other = build("image", own_model, trusted)
    assert other.fingerprint != teacher.fingerprint
    torch.testing.assert_close(other(x), x.amax(dim=(2, 3)).sum(dim=1, keepdim=True).expand(-1, 4))


@pytest.mark.parametrize("no", ["", "0"])
def test_code_is_not_run_because_a_recipe_says_so(own_model, monkeypatch, no):
    monkeypatch.setenv("CCL_TRUST_REMOTE_CODE", no)
    with pytest.raises(WeightsError, match=r"a recipe alone cannot.*give the teacher with --teacher"):
        build("image", own_model, "?pool=mean&trust_remote_code=true")


def test_code_of_another_repository_is_not_run(own_model):
    config = (own_model / "config.json").read_text()
    (own_model / "config.json").write_text(config.replace("code.Model", "somebody/else--code.Model"))
    with pytest.raises(WeightsError, match="of another repository, 'somebody/else', which is not run"):
        build("image", own_model, "?pool=mean&trust_remote_code=true")


def test_the_fingerprint_is_of_weights_settings_pooling_and_processor(models, tmp_path, monkeypatch):
    monkeypatch.setenv("CCL_TRUST_REMOTE_CODE", "1")
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = build("image", models("vit"))
    assert torch.equal(before, torch.get_rng_state())
    assert build("image", shutil.copytree(models("vit"), tmp_path / "vit")).fingerprint == first.fingerprint
    weights = hub_models.write_model(tmp_path / "1" / "vit", "vit", seed=1)
    processor = shutil.copytree(models("vit"), tmp_path / "2" / "vit")
    hf.ViTImageProcessor(size={"height": 32, "width": 32}, do_normalize=False).save_pretrained(processor)
    others = [
        build("image", weights),
        build("image", processor),
        build("image", models("vit"), "?pool=mean"),
        build("image", models("vit"), "?trust_remote_code=true"),
    ]
    assert len({each.fingerprint for each in (first, *others)}) == 5
    assert "trust_remote_code=true" in others[-1].variant
    assert "pool=cls" in first.variant


# ---- what is missing or wrong


def test_a_model_that_is_not_here_names_the_command():
    with pytest.raises(WeightsError, match="'some/model' is not on this machine") as caught:
        build("video", "some/model", "?pool=mean")
    assert "`ccl teachers pull 'video:hf@some/model?pool=mean'`" in str(caught.value)
    assert caught.value.exit_code == 6
    for wrong in ("@./gone", "@x", "@a b/c", ""):
        with pytest.raises(WeightsError, match="owner/name"):
            HubTeacher.from_spec(parse_model(f"image:hf{wrong}"))


def unlink(name):
    return lambda folder: (folder / name).unlink()


def lose_tensors(folder):
    state = load_file(folder / "model.safetensors")
    save_file(dict(list(state.items())[:-4]), folder / "model.safetensors", {"format": "pt"})


SPOILED = [
    (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "not read pickles"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b"nothing"), "cannot be loaded"),
    (unlink("preprocessor_config.json"), "cannot be loaded"),
    (unlink("config.json"), r"no config\.json"),
    (lose_tensors, "tensors are missing"),
]


@pytest.mark.parametrize(("spoil", "message"), SPOILED)
def test_half_a_model_is_a_sentence(models, tmp_path, spoil, message):
    folder = shutil.copytree(models("vit"), tmp_path / "half")
    spoil(folder)
    with pytest.raises(WeightsError, match=message) as caught:
        build("image", folder)
    assert str(folder) in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("modality", "name", "options", "message"),
    [
        ("image", "swin", "", r"no default image pooling for the architecture 'swin'"),
        ("image", "videomae", "", r"of the modality video\. Use video:hf"),
        ("video", "videomae", "?pool=cls", r"has no pooling 'cls'\. Use mean"),
        ("image", "vit", "?pool=max", r"must be cls or mean or head, not 'max'"),
        ("audio", "clap", "?seconds=30", r"uses at most 1 s of audio, not 30\. Use \?seconds=1 or less"),
        ("audio", "hubert", "?seconds=0.01", r"seconds must be from 0.1"),
        ("text", "bert", "?prompt=a video", r"has no \{\} for the text"),
        ("video", "videomae", "?seconds=3", r"has no option 'seconds'"),
    ],
)
def test_what_a_model_cannot_do_is_a_sentence(models, modality, name, options, message):
    with pytest.raises(PluginError, match=message):
        build(modality, models(name), options)


# ---- the hub; what it answers is tried in tests/cli/teachers/test_hub.py


def test_a_hub_that_does_not_answer_is_a_sentence(monkeypatch, models):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("CCL_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", None)
    spec = parse_model("video:hf@some/model")
    with pytest.raises(WeightsError, match="did not answer"):
        HubTeacher.weight_files(spec)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError, match="Unset HF_HUB_OFFLINE"):
        HubTeacher.weight_files(spec)
    assert HubTeacher.weight_files(parse_model(f"image:hf@{models('vit')}")) == []
