from .app import create_app as create_app
from .limits import Limits as Limits
from .state import Served as Served
