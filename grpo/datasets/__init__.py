"""Data sets: lists of rows with a prompt, mostly a question and an answer, and any other columns the rewards want.

`load` takes a name (a module of this folder), a file or folder, "file.py:function", a hub id, rows, or several of these
with a share each. A new data set is a new file here with a function load(split="train", ...) that returns rows; its
other arguments become options. prompts.py: the order in which rows are taken, and their prompts as token ids;
streaming.py: those of rows that have no length; curriculum.py: an order that goes by how hard they are.

>>> from grpo import datasets
>>> datasets.load("arithmetic", "test", size=2, digits=1)[0]["question"]
'What is 4 + 2?'
"""
from .curriculum import Curriculum, curriculum_of
from .layout import XML_SYSTEM_PROMPT, chat
from .prompts import Prompt, PromptStream, RowOrder, overlap, read_rows
from .registry import has_splits, load, names
from .streaming import StreamedPrompts, stream_of

__all__ = ["XML_SYSTEM_PROMPT", "Curriculum", "Prompt", "PromptStream", "RowOrder", "StreamedPrompts", "chat",
           "curriculum_of", "has_splits", "load", "names", "overlap", "read_rows", "stream_of"]
