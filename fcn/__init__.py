"""The FCN-8s trainer: one rank of a data-parallel MindSpore run."""
