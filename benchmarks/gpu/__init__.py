"""ARM on one NVIDIA GPU, in under eight minutes: its bits, its time, whole models, memory errors (`make gpu`)."""
