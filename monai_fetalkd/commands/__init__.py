"""The commands of ``python -m monai_fetalkd``, one module each."""
