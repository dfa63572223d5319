from .encoder_contract import EncoderContract as EncoderContract
from .index_contract import IndexContract as IndexContract
