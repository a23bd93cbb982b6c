"""Numbers of parameters of the variants of ViT that timm has, which are the published ones."""

import jax
import pytest
from networks import shapes_of

from vitcnn import models

# Variant -> timm's number of parameters; where the file has no position for the class token,
# (timm's number, width), since ours has one of zeros; where registers have positions, which ours
# adds to them, (timm's number, -width times registers). The projection of a CLIP has no bias here.
COUNTS = {
    "DeiT-III-S/16": (22_059_496, 384),  # deit3_small_patch16_224
    "DeiT-III-M/16": (38_849_512, 512),  # deit3_medium_patch16_224
    "DeiT-III-B/16": (86_585_320, 768),  # deit3_base_patch16_224
    "DeiT-III-L/16": (304_374_760, 1_024),  # deit3_large_patch16_224
    "DeiT-III-H/14": (632_126_440, 1_280),  # deit3_huge_patch14_224
    "TIPSv2-B/14": (86_314_752, 768),  # vit_base_patch14_reg1_tipsv2
    "TIPSv2-L/14": (304_014_336, 1_024),  # vit_large_patch14_reg1_tipsv2
    "TIPSv2-so400m/14": (413_391_600, 1_152),  # vit_so400m_patch14_reg1_tipsv2
    "TIPSv2-g/14": (1_135_949_312, 1_536),  # vit_giant_patch14_reg1_tipsv2
    "I-JEPA-H/14": 630_762_240,  # vit_huge_patch14_gap_224
    "I-JEPA-H/16": 631_668_480,  # vit_huge_patch16_gap_448
    "I-JEPA-giant/16": 1_011_368_576,  # vit_giant_patch16_gap_224
    "SBB-wee/16-reg1": 13_422_568,  # vit_wee_patch16_reg1_gap_256
    "SBB-little/16-reg1": 22_515_048,  # vit_little_patch16_reg1_gap_256
    "SBB-little/16-reg4": 22_516_008,  # vit_little_patch16_reg4_gap_256
    "SBB-M/16-reg1": 38_880_232,  # vit_medium_patch16_reg1_gap_256
    "SBB-M/16-reg4": 38_881_768,  # vit_medium_patch16_reg4_gap_256
    "SBB-mediumd/16-reg4": 64_109_032,  # vit_mediumd_patch16_reg4_gap_256
    "SBB-betwixt/16-reg1": 60_396_520,  # vit_betwixt_patch16_reg1_gap_256
    "SBB-betwixt/16-reg4": 60_398_440,  # vit_betwixt_patch16_reg4_gap_256
    "SBB-so150m2/16-reg1": (136_059_560, -832),  # vit_so150m2_patch16_reg1_gap_256
    "SBB-so150m/16-reg4": (134_131_560, -3_584),  # vit_so150m_patch16_reg4_gap_256
    "SBB-M/16": 38_861_288,  # vit_medium_patch16_gap_256
    "relpos-S/16": 21_983_920,  # vit_relpos_small_patch16_224
    "relpos-M/16": 38_747_208,  # vit_relpos_medium_patch16_224
    "relpos-B/16": 86_429_560,  # vit_relpos_base_patch16_224
    "relpos-B/16-clsgap": 86_430_328,  # vit_relpos_base_patch16_clsgap_224
    "relpos-M/16-token": 38_764_616,  # vit_relpos_medium_patch16_cls_224
    "relpos-B/16-token": 86_430_328,  # vit_relpos_base_patch16_cls_224
    "relpos-S/16-shared": 21_973_486,  # vit_srelpos_small_patch16_224
    "relpos-M/16-shared": 38_735_856,  # vit_srelpos_medium_patch16_224
    "CLIP-xs/16": 8_276_992,  # vit_xsmall_patch16_clip_224
    "CLIP-M/32": 39_691_776,  # vit_medium_patch32_clip_224
    "CLIP-M/16": 38_587_392,  # vit_medium_patch16_clip_224
    "CLIP-betwixt/32": 61_411_200,  # vit_betwixt_patch32_clip_224
    "CLIP-plus/16": 117_213_824,  # vit_base_patch16_plus_clip_240
    "CLIP-B/32": 87_849_216,  # vit_base_patch32_clip_224
    "CLIP-B/16": 86_192_640,  # vit_base_patch16_clip_224
    "CLIP-L/14": 303_966_208,  # vit_large_patch14_clip_224
    "CLIP-H/14": 632_076_800,  # vit_huge_patch14_clip_224
    "CLIP-giant/14": 1_012_645_632,  # vit_giant_patch14_clip_224
    "CLIP-gigantic/14": 1_844_907_264,  # vit_gigantic_patch14_clip_224
    "SigLIP-B/16": 92_884_224,  # vit_base_patch16_siglip_224
    "SigLIP-B/16-gap": 85_797_120,  # vit_base_patch16_siglip_gap_224
    "SigLIP-L/16": 315_956_224,  # vit_large_patch16_siglip_256
    "SigLIP-L/16-gap": 303_361_024,  # vit_large_patch16_siglip_gap_256
    "SigLIP-so400m/14": 427_680_704,  # vit_so400m_patch14_siglip_224
    "SigLIP-so400m/14-gap": 412_442_352,  # vit_so400m_patch14_siglip_gap_224
    "SigLIP-B/32": 94_552_320,  # vit_base_patch32_siglip_256
    "SigLIP-B/32-gap": 87_465_216,  # vit_base_patch32_siglip_gap_256
    "SigLIP-so400m/16": 427_888_064,  # vit_so400m_patch16_siglip_256
    "SigLIP-so400m/16-gap": 412_649_712,  # vit_so400m_patch16_siglip_gap_256
    "SigLIP-giantopt/16": 1_163_168_256,  # vit_giantopt_patch16_siglip_256
    "SigLIP-giantopt/16-gap": 1_134_838_272,  # vit_giantopt_patch16_siglip_gap_256
    "EVA-L/14": 304_142_312,  # eva_large_patch14_196
    "InternViT-300M/14": 304_012_288,  # vit_intern300m_patch14_448
    "RADIO-B/16-v3": (86_456_064, 768),  # vit_base_patch16_radio_v3
    "RADIO-L/16-v3": (304_202_752, 1_024),  # vit_large_patch16_radio_v3
    "RADIO-H/16-v3": (631_983_360, 1_280),  # vit_huge_patch16_radio_v3
    "RADIO-H/16-v4": (631_985_920, 1_280),  # vit_huge_patch16_radio_v4
    "RADIO-so400m/16-v4": (413_543_664, 1_152),  # vit_so400m_patch16_radio_v4
    "R+Ti/16": 6_337_704,  # vit_tiny_r_s16_p8_224
    "R26+S/32": 36_431_912,  # vit_small_r26_s32_224
    "R50+B/16": 97_890_112 + 769_000,  # vit_base_r50_s16_224, which has no head
    "R50+L/32": 328_994_856,  # vit_large_r50_s32_224
    "BEiT-3-B/16": 86_659_816,  # beit3_base_patch16_224
    "BEiT-3-L/16": 304_572_392,  # beit3_large_patch16_224
    "relpos-M/16-rpn": 38_734_920,  # vit_relpos_medium_patch16_rpn_224
    "relpos-plus/32-rpn": 119_423_760,  # vit_relpos_base_patch32_plus_rpn_256
    "B/16-rpn": 86_538_472,  # vit_base_patch16_rpn_224
}
COUNTS |= {f"{name}-quickgelu": COUNTS[name] for name in ("CLIP-B/32", "CLIP-B/16", "CLIP-L/14")}
COUNTS |= {f"{name}-quickgelu": COUNTS[name] for name in ("CLIP-H/14", "CLIP-gigantic/14")}


@pytest.mark.parametrize("variant", COUNTS)
def test_parameter_counts_are_those_of_timm(variant):
    depth = models.variant("vit", variant)["depth"]
    params, _ = shapes_of(models.create("vit", variant, depth=2))  # forty blocks take seconds
    sizes = [
        jax.tree.leaves(part)
        for part in (params, params["params"]["Transformer"]["encoderblock_1"])
    ]
    whole, block = (sum(leaf.size for leaf in leaves) for leaves in sizes)
    count = COUNTS[variant]
    expected = sum(count) if isinstance(count, tuple) else count
    assert whole + (depth - 2) * block == expected
