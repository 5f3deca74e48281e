"What describes a model and what it has learned, as files: ours, and other people's."
