"The commands of `nanodetr` that train a model and use it."
