"""The model: its weights on a device, its tokenizer, and the files that both come from and go to.

model.py Model and the calls that run it; module.py and config_view.py what scripts ask of a model of PyTorch, arrays.py
its generate(); objects.py a model of transformers, as where weights come from and go back to; loading.py where a model
comes from: load, tiny; families/ what a config.json says of a network, as a spec; devices.py where it runs;
tokenizer.py and chat.py text to token ids and back, tokenizer_sources.py where a model's comes from; export.py a model
as a GGUF; hub.py from a name to files; formats/ the files themselves.
"""
from .devices import DRIVER, LEAST_CAPABILITY, gpu_memory, pick_device, search_packages
from .families import spec_of
from .formats.gguf import GgufFile
from .formats.safetensors import SafetensorsFile, SafetensorsFolder, from_bfloat16_bits, write_weights
from .formats.strict_json import read_object
from .hub import resolve
from .loading import load, tiny
from .model import Completion, EncodedPrompt, Model
from .tokenizer import Tokenizer, beginning, row_variables
from .tokenizer_sources import NoTokenizer

__all__ = ["DRIVER", "LEAST_CAPABILITY", "Completion", "EncodedPrompt", "GgufFile", "Model", "NoTokenizer",
           "SafetensorsFile", "SafetensorsFolder", "Tokenizer", "beginning", "from_bfloat16_bits", "gpu_memory",
           "load", "pick_device", "read_object", "resolve", "row_variables", "search_packages", "spec_of", "tiny",
           "write_weights"]
