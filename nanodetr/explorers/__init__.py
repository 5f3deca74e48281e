"Figures with controls: one module per explorer, all built on `core`. All public names of the modules below are found here too."
from .core import *
from .boxes import *
from .positions import *
from .precision_recall import *
from .encoder_attention import *
from .decoder_attention import *
from .matching import *
from .replay import *
from .detections import *
from .playground import *
from .live_training import *
