"""The allow-list: every x86-64 instruction that an integer-only kernel may contain, by its encoding.

What is not in these tables has no name, and the audit fails on it; no table holds floating-point arithmetic, comparison
or conversion, the x87, MMX or FP16 encodings, or an access to MXCSR. A few entries have "ps", "pd", "ss" or "sd" in
their names: MOVAPS, XORPS, SHUFPS, VBROADCASTSS and their like move, select or combine bits of a register without
looking at them as numbers. They round nothing, raise no flag and are what LLVM likes to use for integers too;
`FLOAT_NAMED` lists them, so that a histogram can show them apart.

Keys are the opcode map (0: one byte, 1: 0F, 2: 0F 38, 3: 0F 3A), the mandatory prefix (0: none, 1: 66, 2: F3, 3: F2)
and the opcode byte. Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, appendix A.
"""

CONDITIONS = ("o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g")
ARITHMETIC = ("add", "or", "adc", "sbb", "and", "sub", "xor", "cmp")
SHIFTS = ("rol", "ror", "rcl", "rcr", "shl", "shr", "shl", "sar")
UNARY = ("test", "test", "not", "neg", "mul", "imul", "div", "idiv")
BIT_TESTS = ("", "", "", "", "bt", "bts", "btr", "btc")


def _listed(text: str) -> dict[int, str]:
    """{opcode: name} from "6f movdqa 7f movdqa ..."."""
    words = text.split()
    return {int(code, 16): name for code, name in zip(words[::2], words[1::2], strict=True)}


# One-byte opcodes with a name of their own; x86.py knows the regular blocks (arithmetic, push, pop, jumps, shifts).
ONE_BYTE = _listed("""
        63 movsxd 68 push 69 imul 6a push 6b imul 84 test 85 test 86 xchg 87 xchg 88 mov 89 mov 8a mov 8b mov 8d lea
        90 nop 98 cdqe 99 cqo a4 movs a5 movs a8 test a9 test aa stos ab stos c2 ret c3 ret c6 mov c7 mov c9 leave
        cc int3 e8 call e9 jmp eb jmp""")
TWO_BYTE = _listed("""
        0b ud2 0d prefetch 18 prefetch 1e nop 1f nop a3 bt a4 shld a5 shld ab bts ac shrd ad shrd af imul b0 cmpxchg
        b1 cmpxchg b3 btr b6 movzx b7 movzx bb btc bc bsf bd bsr be movsx bf movsx c0 xadd c1 xadd c3 movnti""")
REPEATED = _listed("b8 popcnt bc tzcnt bd lzcnt")  # two-byte opcodes after F3

# SSE2 to SSE4.2 and, with a "v" in front, their VEX and EVEX forms.
VECTOR = {
    (1, 0): _listed("10 movups 11 movups 12 movlps 13 movlps 14 unpcklps 15 unpckhps 16 movhps 17 movhps 28 movaps "
                    "29 movaps 2b movntps 50 movmskps 54 andps 55 andnps 56 orps 57 xorps c6 shufps"),
    (1, 1): _listed("""
        10 movupd 11 movupd 12 movlpd 13 movlpd 14 unpcklpd 15 unpckhpd 16 movhpd 17 movhpd 28 movapd 29 movapd
        2b movntpd 50 movmskpd 54 andpd 55 andnpd 56 orpd 57 xorpd c6 shufpd 60 punpcklbw 61 punpcklwd 62 punpckldq
        63 packsswb 64 pcmpgtb 65 pcmpgtw 66 pcmpgtd 67 packuswb 68 punpckhbw 69 punpckhwd 6a punpckhdq 6b packssdw
        6c punpcklqdq 6d punpckhqdq 6e movd 6f movdqa 70 pshufd 74 pcmpeqb 75 pcmpeqw 76 pcmpeqd 7e movd 7f movdqa
        c4 pinsrw c5 pextrw d1 psrlw d2 psrld d3 psrlq d4 paddq d5 pmullw d6 movq d7 pmovmskb d8 psubusb d9 psubusw
        da pminub db pand dc paddusb dd paddusw de pmaxub df pandn e0 pavgb e1 psraw e2 psrad e3 pavgw e4 pmulhuw
        e5 pmulhw e7 movntdq e8 psubsb e9 psubsw ea pminsw eb por ec paddsb ed paddsw ee pmaxsw ef pxor f1 psllw
        f2 pslld f3 psllq f4 pmuludq f5 pmaddwd f6 psadbw f8 psubb f9 psubw fa psubd fb psubq fc paddb fd paddw
        fe paddd"""),
    (1, 2): _listed("10 movss 11 movss 12 movsldup 16 movshdup 6f movdqu 70 pshufhw 7e movq 7f movdqu"),
    (1, 3): _listed("10 movsd 11 movsd 12 movddup 70 pshuflw"),
    (2, 1): _listed("""
        00 pshufb 04 pmaddubsw 08 psignb 09 psignw 0a psignd 0b pmulhrsw 1c pabsb 1d pabsw 1e pabsd 20 pmovsxbw
        21 pmovsxbd 22 pmovsxbq 23 pmovsxwd 24 pmovsxwq 25 pmovsxdq 28 pmuldq 29 pcmpeqq 2a movntdqa 2b packusdw
        30 pmovzxbw 31 pmovzxbd 32 pmovzxbq 33 pmovzxwd 34 pmovzxwq 35 pmovzxdq 37 pcmpgtq 38 pminsb 39 pminsd
        3a pminuw 3b pminud 3c pmaxsb 3d pmaxsd 3e pmaxuw 3f pmaxud 40 pmulld 17 ptest"""),
    (3, 1): _listed("0c blendps 0d blendpd 0e pblendw 0f palignr 14 pextrb 15 pextrw 16 pextrd 17 extractps 20 pinsrb "
                    "21 insertps 22 pinsrd"),
}  # fmt: skip
LEGACY_ONLY = {(2, 1): _listed("10 pblendvb 14 blendvps 15 blendvpd")}

# AVX and AVX2 forms without a legacy form, the mask registers of AVX-512, BMI.
VEX = {
    (1, 0): _listed("41 kandw 42 kandnw 44 knotw 45 korw 46 kxnorw 47 kxorw 4b kunpckwd 77 zeroupper 90 kmovw 91 kmovw "
                    "92 kmovw 93 kmovw 98 kortestw 99 ktestw"),
    (1, 1): _listed("41 kandb 42 kandnb 44 knotb 45 korb 46 kxnorb 47 kxorb 4b kunpckbw 90 kmovb 91 kmovb 92 kmovb "
                    "93 kmovb 98 kortestb 99 ktestb"),
    (1, 3): _listed("92 kmovd 93 kmovd"),
    (2, 0): _listed("f2 andn f5 bzhi f7 bextr"),
    (2, 1): _listed("""
        0c permilps 0d permilpd 16 permps 18 broadcastss 19 broadcastsd 1a broadcastf128 2c maskmovps 2d maskmovpd
        2e maskmovps 2f maskmovpd 36 permd 45 psrlvd 46 psravd 47 psllvd 50 pdpbusd 52 pdpwssd 58 pbroadcastd
        59 pbroadcastq 5a broadcasti128 78 pbroadcastb 79 pbroadcastw 8c pmaskmovd 8e pmaskmovd 90 pgatherdd
        91 pgatherqd f7 shlx"""),
    (2, 2): _listed("f5 pext f7 sarx"),
    (2, 3): _listed("f5 pdep f6 mulx f7 shrx"),
    (3, 1): _listed("""
        00 permq 01 permpd 02 pblendd 04 permilps 05 permilpd 06 perm2f128 18 insertf128 19 extractf128 30 kshiftrb
        31 kshiftrd 32 kshiftlb 33 kshiftld 38 inserti128 39 extracti128 46 perm2i128 4a blendvps 4b blendvpd
        4c pblendvb"""),
    (3, 3): _listed("f0 rorx"),
}  # fmt: skip
# Where VEX.W changes the name: AVX-512's mask instructions for wider masks, 64-bit lanes.
VEX_WIDE = {
    "kandw": "kandq", "kandnw": "kandnq", "knotw": "knotq", "korw": "korq", "kxnorw": "kxnorq", "kxorw": "kxorq",
    "kunpckwd": "kunpckdq", "kandb": "kandd", "kandnb": "kandnd", "knotb": "knotd", "korb": "kord",
    "kxnorb": "kxnord", "kxorb": "kxord", "kmovb": "kmovd", "kmovw": "kmovq", "kmovd": "kmovq",
    "kortestw": "kortestq", "ktestw": "ktestq", "kortestb": "kortestd", "ktestb": "ktestd", "kshiftrb": "kshiftrw",
    "kshiftrd": "kshiftrq", "kshiftlb": "kshiftlw", "kshiftld": "kshiftlq", "psrlvd": "psrlvq", "psllvd": "psllvq",
    "movd": "movq", "pextrd": "pextrq", "pinsrd": "pinsrq", "pmaskmovd": "pmaskmovq", "pgatherdd": "pgatherdq",
    "pgatherqd": "pgatherqq"
}  # fmt: skip

# EVEX forms whose names differ from the VEX ones or that exist in EVEX only: names for W = 0 and W = 1 ("-": none).
EVEX = {
    (1, 1): "6f movdqa32 movdqa64 7f movdqa32 movdqa64 db pandd pandq df pandnd pandnq eb pord porq ef pxord pxorq "
            "e2 psrad psraq 6e movd movq 7e movd movq d6 - movq",
    (1, 2): "6f movdqu32 movdqu64 7f movdqu32 movdqu64",
    (1, 3): "6f movdqu8 movdqu16 7f movdqu8 movdqu16",
    (2, 1): """
        10 - psrlvw 11 - psravw 12 - psllvw 14 prorvd prorvq 15 prolvd prolvq 16 permps permpd 18 broadcastss -
        19 broadcastf32x2 broadcastsd 1a broadcastf32x4 broadcastf64x2 1b broadcastf32x8 broadcastf64x4 1f - pabsq
        26 ptestmb ptestmw 27 ptestmd ptestmq 36 permd permq 39 pminsd pminsq 3b pminud pminuq 3d pmaxsd pmaxsq
        3f pmaxud pmaxuq 40 pmulld pmullq 44 plzcntd plzcntq 45 psrlvd psrlvq 46 psravd psravq 47 psllvd psllvq
        50 pdpbusd - 52 pdpwssd - 54 popcntb popcntw 55 popcntd popcntq 58 pbroadcastd -
        59 broadcasti32x2 pbroadcastq 5a broadcasti32x4 broadcasti64x2 5b broadcasti32x8 broadcasti64x4
        62 pexpandb pexpandw 63 pcompressb pcompressw 64 pblendmd pblendmq 65 blendmps blendmpd 66 pblendmb pblendmw
        70 - pshldvw 71 pshldvd pshldvq 72 - pshrdvw 73 pshrdvd pshrdvq 75 permi2b permi2w 76 permi2d permi2q
        77 permi2ps permi2pd 78 pbroadcastb - 79 pbroadcastw - 7a pbroadcastb - 7b pbroadcastw -
        7c pbroadcastd pbroadcastq 7d permt2b permt2w 7e permt2d permt2q 7f permt2ps permt2pd 89 pexpandd pexpandq
        8b pcompressd pcompressq 8d permb permw 90 pgatherdd pgatherdq 91 pgatherqd pgatherqq
        a0 pscatterdd pscatterdq a1 pscatterqd pscatterqq""",
    (2, 2): """
        10 pmovuswb - 11 pmovusdb - 12 pmovusqb - 13 pmovusdw - 14 pmovusqw - 15 pmovusqd - 20 pmovswb -
        21 pmovsdb - 22 pmovsqb - 23 pmovsdw - 24 pmovsqw - 25 pmovsqd - 26 ptestnmb ptestnmw 27 ptestnmd ptestnmq
        28 pmovm2b pmovm2w 29 pmovb2m pmovw2m 30 pmovwb - 31 pmovdb - 32 pmovqb - 33 pmovdw - 34 pmovqw -
        35 pmovqd - 38 pmovm2d pmovm2q 39 pmovd2m pmovq2m""",
    (3, 1): """
        00 - permq 01 - permpd 03 alignd alignq 04 permilps - 05 - permilpd 14 pextrb pextrb 15 pextrw pextrw
        16 pextrd pextrq 18 insertf32x4 insertf64x2 19 extractf32x4 extractf64x2 1a insertf32x8 insertf64x4
        1b extractf32x8 extractf64x4 1e pcmpud pcmpuq 1f pcmpd pcmpq 20 pinsrb pinsrb 22 pinsrd pinsrq
        23 shuff32x4 shuff64x2 25 pternlogd pternlogq 38 inserti32x4 inserti64x2 39 extracti32x4 extracti64x2
        3a inserti32x8 inserti64x4 3b extracti32x8 extracti64x4 3e pcmpub pcmpuw 3f pcmpb pcmpw
        43 shufi32x4 shufi64x2 70 - pshldw 71 pshldd pshldq 72 - pshrdw 73 pshrdd pshrdq""",
}  # fmt: skip
EVEX = {
    key: {int(words[i], 16): (words[i + 1], words[i + 2]) for i in range(0, len(words), 3)}
    for key, words in ((key, text.split()) for key, text in EVEX.items())
}
# Shifts by an immediate: opcode -> names by ModRM.reg; the rotations exist in EVEX only.
GROUPS = {0x71: {2: "psrlw", 4: "psraw", 6: "psllw"}, 0x72: {2: "psrld", 4: "psrad", 6: "pslld"},
          0x73: {2: "psrlq", 3: "psrldq", 6: "psllq", 7: "pslldq"}}  # fmt: skip
EVEX_GROUPS = {0x72: {0: ("prord", "prorq"), 1: ("prold", "prolq"), 2: ("psrld", "-"), 4: ("psrad", "psraq"),
                      6: ("pslld", "-")}}  # fmt: skip
BMI_GROUP = {1: "blsr", 2: "blsmsk", 3: "blsi"}  # VEX 0F 38 F3

FLOAT_NAMED = frozenset(
    """
        movups movaps movlps movhps unpcklps unpckhps movntps movmskps andps andnps orps xorps shufps movupd movapd
        movlpd movhpd unpcklpd unpckhpd movntpd movmskpd andpd andnpd orpd xorpd shufpd movss movsd movsldup
        movshdup movddup blendps blendpd extractps insertps blendvps blendvpd permilps permilpd permps permpd
        broadcastss broadcastsd broadcastf128 maskmovps maskmovpd perm2f128 insertf128 extractf128 broadcastf32x2
        broadcastf32x4 broadcastf64x2 broadcastf32x8 broadcastf64x4 blendmps blendmpd permi2ps permi2pd permt2ps
        permt2pd insertf32x4 insertf64x2 extractf32x4 extractf64x2 insertf32x8 insertf64x4 extractf32x8 extractf64x4
        shuff32x4 shuff64x2""".split()
)

# What to call an encoding that is not allowed, by map: for messages only.
FLOATING_POINT = {
    1: _listed("""
        51 sqrt 52 rsqrt 53 rcp 58 add 59 mul 5a convert 5b convert 5c sub 5d min 5e div 5f max 2a convert-from-int
        2c convert-to-int 2d convert-to-int 2e compare 2f compare 5a convert c2 compare d0 addsub e6 convert
        7a convert 7b convert-from-int 78 convert-to-int 79 convert-to-int 7c hadd 7d hsub"""),
    2: {code: "fused-multiply-add" for code in (*range(0x96, 0xA0), *range(0xA6, 0xB0), *range(0xB6, 0xC0))}
       | _listed("13 convert 42 getexp 4c rcp14 4e rsqrt14 2c scalef"),
    3: _listed("08 round 09 round 0a round 0b round 1d convert 26 getmant 27 getmant 40 dot-product 41 dot-product "
               "50 range 54 fixup 55 fixup 56 reduce 66 classify"),
}  # fmt: skip
