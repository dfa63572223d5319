from .comparison import Comparison as Comparison
from .comparison import compare as compare
from .explaining import explain as explain
from .explanation import Alignment as Alignment
from .explanation import Explanation as Explanation
from .explanation import ReadText as ReadText
from .explanation import TermShare as TermShare
