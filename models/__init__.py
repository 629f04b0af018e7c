"""Models: one shared transformer that follows any plan.

Knows plans, tokens and weights. Refuses to know an order's name and any file of results.

    model    = load_checkpoint("arpg_300m.pt", family="arpg"), or load_shipped("fashion-model").network
    decoded  = decode(model, plan, range(64))            one Step a step inside, with a cache
    nested   = decode(..., decoder=parse_correction("nested:margin=1").decoder)
    logits   = plan_logits(model, tokens, labels, plan)  what every cell's prediction sees when it is decoded

Tensor names carry shape suffixes. The key, for the whole project: B batch, N samples, L cells, G cells decoded this
step, M cells known so far, Q cells asked, S slots (the class and content), D model width, H heads, K head size, V
vocabulary, F feed-forward width, C classes, z code size, J rotary pairs, R and C rows and columns of the token grid,
lower-case c, h, w channels and pixels. `logits_BGV`, `known_BM`, `images_Bchw`.
"""

from orderbench.models.adaptive import Confidence as Confidence
from orderbench.models.adaptive import adaptive_steps as adaptive_steps
from orderbench.models.arpg import load_checkpoint as load_checkpoint
from orderbench.models.config import ModelConfig as ModelConfig
from orderbench.models.correction import measure_repair as measure_repair
from orderbench.models.correction import parse_correction as parse_correction
from orderbench.models.decode import Decoded as Decoded
from orderbench.models.decode import Step as Step
from orderbench.models.decode import decode as decode
from orderbench.models.decode import decode_steps as decode_steps
from orderbench.models.decode import uncached_steps as uncached_steps
from orderbench.models.likelihood import crop_logits as crop_logits
from orderbench.models.likelihood import plan_logits as plan_logits
from orderbench.models.sampling import Guidance as Guidance
from orderbench.models.sampling import Sampling as Sampling
from orderbench.models.shipped import load_shipped as load_shipped
from orderbench.models.shipped import load_weights as load_weights
from orderbench.models.transformer import Transformer as Transformer
from orderbench.models.vq16 import load_vq16 as load_vq16
