"Every figure of the course as a function of tensors. All public names of the modules below are found here too."
from .pictures import *
from .schematics import *
