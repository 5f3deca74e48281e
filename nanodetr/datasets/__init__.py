"Where pictures and their boxes come from: shapes from a seed, folders of photographs, augmentation, a check for faults."
