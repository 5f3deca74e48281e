"What makes a training practical."
