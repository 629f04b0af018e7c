"""Models: networks that follow plans, and what decodes, scores and trains them.

Knows plans, codes and weights. Refuses to know an order's name and any file of results.

    model    = load_checkpoint("arpg_300m.pt", family="arpg"), or load_shipped("fashion-model").network
    decoded  = decode(model, plan, range(64))            step by step, with a cache
    nested   = decode(..., decoder=parse_decoder("nested:margin=1"))
    bits     = plan_bits(model, codes, labels, plan)     each cell sees what it sees when it is decoded

Tensor names carry shape suffixes. The key, for the whole project: B batch, N samples, L cells, G cells decoded this
step, U cells not decoded yet, M cells known so far, Q cells asked, S slots (the class and content), K codes of a cell
(in attention: head size), V vocabulary, D model width, H heads, F feed-forward width, J rotary pairs, C classes, z code
size, R and C rows and columns of the token grid, lower-case c, h, w channels and pixels. `logits_BQV`, `known_BM`,
`codes_BLK`, `images_Bchw`.
"""

from orderbench.models.adaptive import adaptive_steps as adaptive_steps
from orderbench.models.answer import Answer as Answer
from orderbench.models.answer import Categorical as Categorical
from orderbench.models.answer import Chained as Chained
from orderbench.models.arpg import load_arpg as load_arpg
from orderbench.models.codec import Codec as Codec
from orderbench.models.codec import load_codec as load_codec
from orderbench.models.codec import register_tokenizer as register_tokenizer
from orderbench.models.config import ModelConfig as ModelConfig
from orderbench.models.correction import measure_repair as measure_repair
from orderbench.models.decode import Decoded as Decoded
from orderbench.models.decode import Step as Step
from orderbench.models.decode import Tile as Tile
from orderbench.models.decode import decode as decode
from orderbench.models.decode import decode_steps as decode_steps
from orderbench.models.decode import parse_decoder as parse_decoder
from orderbench.models.decode import register_decoder as register_decoder
from orderbench.models.decode import uncached_steps as uncached_steps
from orderbench.models.ear import load_ear as load_ear
from orderbench.models.exact import exact_steps as exact_steps
from orderbench.models.families import load_checkpoint as load_checkpoint
from orderbench.models.families import register_family as register_family
from orderbench.models.guidance import Guidance as Guidance
from orderbench.models.guidance import register_guidance as register_guidance
from orderbench.models.likelihood import plan_answer as plan_answer
from orderbench.models.likelihood import plan_bits as plan_bits
from orderbench.models.llamagen import load_llamagen as load_llamagen
from orderbench.models.lpd import load_lpd as load_lpd
from orderbench.models.model import Model as Model
from orderbench.models.nar import load_nar as load_nar
from orderbench.models.objective import register_term as register_term
from orderbench.models.par import load_par as load_par
from orderbench.models.randar import load_randar as load_randar
from orderbench.models.sampling import Sampling as Sampling
from orderbench.models.shipped import load_shipped as load_shipped
from orderbench.models.shipped import load_weights as load_weights
from orderbench.models.speculative import Speculation as Speculation
from orderbench.models.transformer import Transformer as Transformer
from orderbench.models.var import VAR as VAR
from orderbench.models.var import load_var as load_var
from orderbench.models.varcodec import load_var_tokenizer as load_var_tokenizer
from orderbench.models.vq16 import load_vq16 as load_vq16
