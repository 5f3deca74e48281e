"Every figure of the course as a function of tensors. All public names of the modules below are found here too."
from .style import *
from .pictures import *
from .charts import *
from .map import *
from .schematics import *
