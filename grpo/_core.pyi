"""The C core. Coarse calls on NumPy arrays; no call loops over tokens in Python. Token ids are int32, numbers float32.

Ragged data is a list of 1-D int32 arrays (ids) or one flat array in the same order (numbers). A batch of groups is
``prompts`` (one array a group), ``completions`` (one array each) and ``group`` (int32, ascending: the prompt index of
each completion). The GIL is released; Ctrl-C stops a call within a second with KeyboardInterrupt.
"""
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]

def set_num_threads(count: int, /) -> None: ...
def get_num_threads() -> int: ...
def memory_in_use() -> int: ...
def profile_start() -> None:
    """Count what every op of every model takes, from 0."""
def profile() -> list[tuple[str, int, float, float, float]]:
    """[(op, calls, seconds, floating-point operations, bytes)] since profile_start(), which ends."""
def backend(device: str, /) -> tuple[str, str]: ...
def cuda_plugin() -> tuple[str, str, str]:
    """(file, toolkit version, architectures) of the CUDA plugin; DeviceError if there is none. Asks no driver."""
def cuda_devices() -> list[tuple[str, tuple[int, int], int]]:
    """(name, compute capability, bytes of memory) of each GPU; DeviceError says why there is none."""
def cuda_search(folders: str, /) -> None:
    """Folders (':' between them) where cuBLASLt may be beside the usual places; DeviceError without a plugin."""
def cuda_blas() -> str:
    """The cuBLASLt that the plugin uses, or why there is none. Opens the library."""
def cuda_products() -> str:
    """What multiplies matrices on the GPU: 'wgmma', or 'mma.sync (why)'. DeviceError where there is none. Opens the
    GPU."""

# Of a prompt: (positions int32 (axes, tokens), the position after it, int32 places of its images' tokens, and of each
# image (int64 grid (frames, rows, columns of patches), float32 pixels (patches, numbers of a patch) or None, features
# as see() returns them or None)). Pixels are asked for where the tower is trained, features elsewhere.
Image = tuple[NDArray[np.int64], F32 | None, np.ndarray | None]
PromptImages = tuple[I32, int, I32, list[Image]]

class Model:
    """Weights on one device ('cpu', 'cuda': bfloat16, 'ref': float32) and everything that runs them."""
    def __init__(self, device: str, spec: Any) -> None:
        """spec: a grpo.model.families.Spec, whose `vision` may be a tower. ConfigError names the layer and the key of
        what cannot be run."""
    device: str
    tier: str
    dtype: str                                   # "bfloat16" | "float32"
    tower_version: int                           # one more with every change of the tower's weights
    def tensors(self) -> list[tuple[str, tuple[int, ...]]]:
        """(Hugging Face name, shape) of every parameter, in storage order, the tower's last; a tied lm_head is not
        listed."""
    def set_tensor(self, name: str, array: np.ndarray, /) -> None:
        """array: float32, float16, or uint16 holding bfloat16 bits, C-contiguous; shape as in tensors(). The master
        weights of every Trainer on this model are set with it."""
    def get_tensor(self, name: str, /) -> F32:
        """As float32: of a mixed reference what mix() keeps in float32, else the working weights."""
    def generate(self, prompts: list[I32], num_generations: int, max_new_tokens: int, *,
                 images: list[PromptImages | None] | None = None, temperature: float = 1.0, top_k: int = 0,
                 top_p: float = 1.0, min_p: float = 0.0, repetition_penalty: float = 1.0,
                 min_new_tokens: int = 0, stop_ids: I32 | None = None, forbidden_ids: I32 | None = None,
                 stop_strings: list[bytes] | None = None, token_offsets: NDArray[np.int64] | None = None,
                 token_bytes: bytes | None = None, seed: int = 0, step: int = 0, first_prompt: int = 0, slots: int = 32,
                 store: Store | None = None, store_rows: int = 0, lookahead: int = 0,
                 progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
        """Completions, prompt-major. Keys: lengths (n) int32, tokens (total) int32, logprobs / policy_logprobs /
        entropies (total) float32, finish (n) int32 (0 length, 1 stop id, 2 stop string), stored (n) int64,
        prefill_seconds, decode_seconds.

        The stop id is the last token of its completion. stop_strings need token_offsets (V+1) into token_bytes, the
        bytes that each id adds to the text. temperature 0 is greedy. logprobs are on the truncated support that was
        drawn from, policy_logprobs and entropies on the whole temperature-scaled softmax, bit for bit what logprobs()
        computes. store: where activations stay for Trainer.accumulate, of up to store_rows rows; ``stored`` are the
        completions' ids there, -1 where there was no room.
        lookahead: tokens drawn for every slot between two looks of the host, 0: as suits the device; no bit of the
        result depends on it. progress(tokens so far, completions finished) is called a few times a second."""
    def logprobs(self, prompts: list[I32], completions: list[I32], group: I32, *,
                 images: list[PromptImages | None] | None = None, temperature: float = 1.0,
                 token_budget: int = 1024) -> tuple[F32, F32]:
        """(log-probabilities, entropies), flat over all completion tokens."""
    def logprob_grads(self, prompts: list[I32], completions: list[I32], group: I32, coef: F32, *,
                      images: list[PromptImages | None] | None = None, entropy_coef: F32 | None = None,
                      temperature: float = 1.0, token_budget: int = 1024, recompute: bool = False,
                      train_vision: str = "none") -> tuple[F32, dict[str, F32]]:
        """(log-probabilities, gradient of sum(coef * logprob + entropy_coef * entropy) by tensor name)."""
    def logits(self, ids: I32, images: PromptImages | None = None) -> F32:
        """(len(ids), vocab_size) float32, for inspection and tests."""
    def attention(self, prompt: I32, completion: I32, layers: I32, rows: I32, *,
                  images: PromptImages | None = None) -> F32:
        """Weights of attention, float32 (layers, rows, heads, prompt and completion tokens but the last): what rows of
        the packed prompt and completion saw, 0 for what they did not. Row i is token i, and predicts token i + 1.
        layers and rows ascend."""
    def see(self, images: list[Image], *, patch_budget: int = 4096) -> list[np.ndarray]:
        """Features of images from their pixels: (levels, tokens, hidden_size) each, float32, or uint16 holding bfloat16
        bits. Level 0 stands in place of tokens, level k is added to the text's stream after its layer k - 1.
        patch_budget: patches run together; no bit depends on it."""
    def embed(self, texts: list[I32], *, token_budget: int = 1024) -> F32:
        """(len(texts), hidden_size): the mean of the last hidden states, after the final norm, over each text's tokens.
        A text's vector has the same bits whatever the others are."""
    def mix(self, other: Model, alpha: float, /, tower: bool = True) -> None:
        """weights = alpha * other + (1 - alpha) * weights, kept in float32 from the first call on; without tower
        those of the text alone."""

class Store:
    """Activations of rollouts that wait for the update. What is there stays until the weights change, its group is
    forgotten or the store is cleared; further rollouts add to it. inputs_only: of each layer its input alone, which is
    all that a Trainer with recompute=True reads."""
    def __init__(self, model: Model, *, inputs_only: bool = False) -> None: ...
    bytes: int
    groups: int
    def clear(self) -> None:
        """Forgets everything; the memory stays for the next rollout."""
    def forget(self, ids: NDArray[np.int64], /) -> None:
        """Forgets the groups of these completions; unknown ids are passed over."""

class Trainer:
    """Gradients, master weights and AdamW moments of one Model; works through micro-batches of whole groups."""
    def __init__(self, model: Model, *, adam_beta1: float = 0.9, adam_beta2: float = 0.999, adam_epsilon: float = 1e-8,
                 weight_decay: float = 0.0, token_budget: int = 1024, recompute: bool = False,
                 moment_dtype: str = "float32", master_dtype: str = "float32", seed: int = 0,
                 train_vision: str = "none", vision_rate: float = 1.0) -> None:
        """train_vision: what of a tower is trained: "none", "merger" or "all"; vision_rate: its learning rate, in the
        text's. moment_dtype: "float32", "bfloat16" or "float8" (of matrices; vectors are bfloat16 then). master_dtype:
        "float32" or "float24" (float32 without the 8 least bits). All but float32 are rounded stochastically, with
        random bits of seed and step."""
    def accumulate(self, prompts: list[I32], completions: list[I32], group: I32, coef: F32, *,
                   images: list[PromptImages | None] | None = None, entropy_coef: F32 | None = None,
                   temperature: float = 1.0, store: Store | None = None,
                   stored: NDArray[np.int64] | None = None) -> tuple[F32, F32]:
        """gradient += that of sum(coef * logprob + entropy_coef * entropy); groups whose coefs are all 0 cost nothing
        (their numbers come back 0). Returns (log-probabilities, entropies) seen on the way. This is SFT, and GRPO on
        policy, where the coefficients follow from the recorded log-probs. stored: ids from generate(store=...); while
        the weights are those that drew them, such completions need no forward, and the bits are the same."""
    def accumulate_loss(self, prompts: list[I32], completions: list[I32], group: I32, *, old_logps: F32,
                        advantages: F32, mask: NDArray[np.uint8], ref_logps: F32 | None, loss: dict[str, Any],
                        normalizer: dict[str, float], images: list[PromptImages | None] | None = None,
                        temperature: float = 1.0) -> tuple[float, dict[str, float], F32, F32]:
        """Off policy: log-probs, then the loss of grpo_loss(), then the backward, a micro-batch at a time.
        Returns (loss, metrics, log-probabilities, entropies)."""
    def step(self, learning_rate: float, max_grad_norm: float = 0.0) -> float:
        """Clip to max_grad_norm (0: no clipping), AdamW, gradient = 0. Returns the norm before clipping.
        A norm that is not finite raises NonFiniteError, leaves the weights as they were and the gradient 0."""
    def zero_grad(self) -> None: ...
    def gradient(self, name: str, /) -> F32: ...
    def get_state(self, kind: str, name: str, /) -> F32:
        """kind: 'master', 'm' or 'v', whatever they are stored as."""
    def set_state(self, kind: str, name: str, array: F32, /) -> None:
        """The working weight follows 'master'; ConfigError for numbers that master_dtype or moment_dtype cannot
        hold."""
    def check_state(self, kind: str, name: str, array: F32) -> None:
        """Raises what set_state() would; nothing moves."""
    moment_dtype: str
    master_dtype: str
    steps_taken: int                             # AdamW's t; settable
    def plan(self) -> list[tuple[str, int]]:
        """(arena, bytes) of what is held now."""
    def trained(self) -> list[tuple[str, tuple[int, ...]]]:
        """(Hugging Face name, shape) of every tensor that it trains."""

def plan(*, spec: Any, step_prompts: int, num_generations: int, prompt_length: int, max_new_tokens: int,
         token_budget: int, recompute: bool, moment_dtype: str, master_dtype: str, rollout_prompts: int, slots: int,
         store_rows: int, train: bool, reference: bool, mixed: bool, scored: bool, train_vision: str,
         image_tokens: int, images: int, seen_prompts: int, image_cache: int, device: str) -> list[tuple[str, int]]:
    """(arena, bytes) that a run with these settings will hold; nothing is allocated. scored: the policy gives log-probs
    beside updates. image_tokens: of the ``images`` of a prompt; seen_prompts: those whose images are on the host at a
    time; image_cache: bytes of features kept there."""

def loss_options() -> dict[str, tuple[str, Any, tuple[str, ...]]]:
    """{name: (kind, default, choices)} of every loss option. kind: 'number', 'integer', 'flag' or 'choice', with
    ' or None' where it may be left open; choices: the names that a choice has, else ()."""
def loss_defaults() -> dict[str, Any]:
    """Every loss option and its default: the keys that ``loss`` may have, and GRPOConfig's fields of the same names."""
def grpo_loss(logps: F32, old_logps: F32, advantages: F32, mask: NDArray[np.uint8], ref_logps: F32 | None,
              entropies: F32 | None, lengths: I32, loss: dict[str, Any], normalizer: dict[str, float],
              /) -> tuple[float, F32, F32, dict[str, float]]:
    """Flat over completions. Returns (loss, dloss/dlogp, dloss/dentropy, metrics). ``loss``: see csrc/loss/loss.h;
    ``normalizer``: tokens and sequences of the whole step[, entropy_threshold, entropy_tokens, entropy_coef]."""
def adapt_entropy_coef(coef: float, entropy: float, loss: dict[str, Any], /) -> tuple[float, float]:
    """(new coefficient, coefficient the next step applies) after a step of mean entropy ``entropy``."""
def group_advantages(rewards: NDArray[np.float64], weights: NDArray[np.float64], sizes: I32, scale_rewards: str,
                     multi_objective_aggregation: str, /) -> F32:
    """rewards (n, n_functions), NaN = not scored; weights (n_functions); sizes (groups), rows of each group."""
def selective_log_softmax(logits: F32, ids: I32, temperature: float, /) -> tuple[F32, F32]:
    """logits (N, V), ids (N): (log-probs, entropies)."""

class Ops:
    """One method an entry of ops.def on float32 arrays, rounded to the device's storage on the way in. For tests and
    benchmarks. Each method's docstring has its formula and shapes; gradients that an op adds to are passed in and
    returned."""
    repeat: int                                  # times a call is run
    seconds: float                               # the fastest of them
    times: list[float]                           # seconds of each, of the first 64
    def __init__(self, device: str) -> None: ...
    def __getattr__(self, op: str) -> Any: ...

def preprocess(images: list[NDArray[np.uint8]], sizes: I32, *, table: F32, patch_size: int, merge_size: int,
               temporal_patch_size: int, device: str) -> tuple[F32, NDArray[np.int64]]:
    """images (height, width, 3), resized by Pillow's bicubic filter to sizes (n, 2); table (3, 256): the number that a
    byte of a colour becomes. (pixel_values (patches, numbers of a patch), image_grid_thw (n, 3))."""
def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int, /) -> tuple[int, int]:
    """The size at which Qwen2-VL and its successors see an image; ConfigError for one that is too narrow."""

def dequantize(type: str, data: bytes | bytearray | memoryview, count: int, /) -> F32:
    """GGUF blocks, of a format that block_formats names -> float32 (count,)."""
def quantize(type: str, array: F32, /) -> NDArray[np.uint8]:
    """float32 (n,) -> GGUF blocks, uint8 (bytes,), of F32, F16, BF16 or Q8_0; FileFormatError where a number is not
    finite in F16 or Q8_0."""

block_formats: dict[str, tuple[int, int]]
"""{"Q4_K": (elements, bytes) of a block, ...}"""
