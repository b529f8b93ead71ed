"""Training: texts, tasks, the loop, checkpoints."""

from .agreement import AgreementTask
from .language import LanguageTask
from .loop import Configuration, Report, Run, load_model
from .model import LanguageModel, write_on
from .text import Vocabulary, read_text

__all__ = [
    "AgreementTask",
    "Configuration",
    "LanguageModel",
    "LanguageTask",
    "Report",
    "Run",
    "Vocabulary",
    "load_model",
    "read_text",
    "write_on",
]
