"Figures with controls: one module an explorer, all on `core`. All public names of the modules below are found here too."
from .core import *
