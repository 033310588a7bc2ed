"""Train an integer model by a recipe: noise-aware, then quantization-aware, saved as a model file. Needs torch.

A recipe is a small readable file; the shipped ones made the shipped models.
"""

from intsmooth.training.command import EXAMPLES, SUMMARY, add_arguments
from intsmooth.training.command import main as run

__all__ = ["EXAMPLES", "SUMMARY", "add_arguments", "run"]
