#include "textflag.h"

// Sixteen lanes, with AVX-512. State words v0..v15 are Z0..Z15, message words
// m0..m15 are Z16..Z31; a word of lane i is in element i. See the BLAKE3 paper,
// section 2.2, for the names. eight_amd64.s has eight lanes.

DATA iv<>+0x00(SB)/4, $0x6A09E667
DATA iv<>+0x04(SB)/4, $0xBB67AE85
DATA iv<>+0x08(SB)/4, $0x3C6EF372
DATA iv<>+0x0c(SB)/4, $0xA54FF53A
DATA iv<>+0x10(SB)/4, $0x510E527F
DATA iv<>+0x14(SB)/4, $0x9B05688C
DATA iv<>+0x18(SB)/4, $0x1F83D9AB
DATA iv<>+0x1c(SB)/4, $0x5BE0CD19
GLOBL iv<>(SB), RODATA|NOPTR, $32

// HALF is four quarter rounds side by side: on columns or on diagonals.
#define HALF(a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3, x0, x1, x2, x3, y0, y1, y2, y3) \
	VPADDD x0, a0, a0; VPADDD x1, a1, a1; VPADDD x2, a2, a2; VPADDD x3, a3, a3; \
	VPADDD b0, a0, a0; VPADDD b1, a1, a1; VPADDD b2, a2, a2; VPADDD b3, a3, a3; \
	VPXORD a0, d0, d0; VPXORD a1, d1, d1; VPXORD a2, d2, d2; VPXORD a3, d3, d3; \
	VPRORD $16, d0, d0; VPRORD $16, d1, d1; VPRORD $16, d2, d2; VPRORD $16, d3, d3; \
	VPADDD d0, c0, c0; VPADDD d1, c1, c1; VPADDD d2, c2, c2; VPADDD d3, c3, c3; \
	VPXORD c0, b0, b0; VPXORD c1, b1, b1; VPXORD c2, b2, b2; VPXORD c3, b3, b3; \
	VPRORD $12, b0, b0; VPRORD $12, b1, b1; VPRORD $12, b2, b2; VPRORD $12, b3, b3; \
	VPADDD y0, a0, a0; VPADDD y1, a1, a1; VPADDD y2, a2, a2; VPADDD y3, a3, a3; \
	VPADDD b0, a0, a0; VPADDD b1, a1, a1; VPADDD b2, a2, a2; VPADDD b3, a3, a3; \
	VPXORD a0, d0, d0; VPXORD a1, d1, d1; VPXORD a2, d2, d2; VPXORD a3, d3, d3; \
	VPRORD $8, d0, d0; VPRORD $8, d1, d1; VPRORD $8, d2, d2; VPRORD $8, d3, d3; \
	VPADDD d0, c0, c0; VPADDD d1, c1, c1; VPADDD d2, c2, c2; VPADDD d3, c3, c3; \
	VPXORD c0, b0, b0; VPXORD c1, b1, b1; VPXORD c2, b2, b2; VPXORD c3, b3, b3; \
	VPRORD $7, b0, b0; VPRORD $7, b1, b1; VPRORD $7, b2, b2; VPRORD $7, b3, b3

// ROUND takes the message words in the order of the round's permutation.
#define ROUND(m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13, m14, m15) \
	HALF(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15, m0, m2, m4, m6, m1, m3, m5, m7); \
	HALF(Z0, Z1, Z2, Z3, Z5, Z6, Z7, Z4, Z10, Z11, Z8, Z9, Z15, Z12, Z13, Z14, m8, m10, m12, m14, m9, m11, m13, m15)

// ROWS loads 16 bytes at off of rows k, k+4, k+8 and k+12 into z; k is in the
// index.
#define ROWS(off, index, x, z) \
	VMOVDQU off(R12)(index), x; \
	VINSERTI32X4 $1, off(R13)(index), z, z; \
	VINSERTI32X4 $2, off(R14)(index), z, z; \
	VINSERTI32X4 $3, off(R15)(index), z, z

// TURN transposes each 4x4 block of words of z0..z3 into w0..w3, by u0..u3.
#define TURN(z0, z1, z2, z3, u0, u1, u2, u3, w0, w1, w2, w3) \
	VPUNPCKLDQ z1, z0, u0; VPUNPCKHDQ z1, z0, u1; \
	VPUNPCKLDQ z3, z2, u2; VPUNPCKHDQ z3, z2, u3; \
	VPUNPCKLQDQ u2, u0, w0; VPUNPCKHQDQ u2, u0, w1; \
	VPUNPCKLQDQ u3, u1, w2; VPUNPCKHQDQ u3, u1, w3

// WORDS loads four words of the message of all lanes.
#define WORDS(off, w0, w1, w2, w3) \
	ROWS(off, AX*1, X8, Z8); \
	ROWS(off, R8*1, X9, Z9); \
	ROWS(off, R8*2, X10, Z10); \
	ROWS(off, R9*1, X11, Z11); \
	TURN(Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15, w0, w1, w2, w3)

// STORE writes four words of the values of lanes k, k+4, k+8 and k+12.
#define STORE(z, k, off) \
	VEXTRACTI32X4 $0, z, (k*32+off)(DI); \
	VEXTRACTI32X4 $1, z, (k*32+off+128)(DI); \
	VEXTRACTI32X4 $2, z, (k*32+off+256)(DI); \
	VEXTRACTI32X4 $3, z, (k*32+off+384)(DI)

// func compress16(out *CV, in *byte, stride, blocks uint64, counter *uint32, high, flags, first, last uint32)
TEXT ·compress16(SB), NOSPLIT, $0-56
	MOVQ out+0(FP), DI
	MOVQ in+8(FP), R12
	MOVQ stride+16(FP), R8
	MOVQ blocks+24(FP), CX
	MOVQ counter+32(FP), SI
	MOVL high+40(FP), R10
	MOVL flags+44(FP), BX
	MOVL first+48(FP), DX
	MOVL last+52(FP), R11
	XORL AX, AX
	LEAQ (R8)(R8*2), R9
	LEAQ (R12)(R8*4), R13
	LEAQ (R13)(R8*4), R14
	LEAQ (R14)(R8*4), R15
	ORL  BX, DX
	VPBROADCASTD iv<>+0x00(SB), Z0
	VPBROADCASTD iv<>+0x04(SB), Z1
	VPBROADCASTD iv<>+0x08(SB), Z2
	VPBROADCASTD iv<>+0x0c(SB), Z3
	VPBROADCASTD iv<>+0x10(SB), Z4
	VPBROADCASTD iv<>+0x14(SB), Z5
	VPBROADCASTD iv<>+0x18(SB), Z6
	VPBROADCASTD iv<>+0x1c(SB), Z7

block:
	CMPQ CX, $1
	JNE  load
	ORL  R11, DX

load:
	WORDS(0, Z16, Z17, Z18, Z19)
	WORDS(16, Z20, Z21, Z22, Z23)
	WORDS(32, Z24, Z25, Z26, Z27)
	WORDS(48, Z28, Z29, Z30, Z31)
	VPBROADCASTD iv<>+0x00(SB), Z8
	VPBROADCASTD iv<>+0x04(SB), Z9
	VPBROADCASTD iv<>+0x08(SB), Z10
	VPBROADCASTD iv<>+0x0c(SB), Z11
	VMOVDQU32    (SI), Z12
	VPBROADCASTD R10, Z13
	MOVL         $64, AX
	VPBROADCASTD AX, Z14
	XORL         AX, AX
	VPBROADCASTD DX, Z15
	ROUND(Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31)
	ROUND(Z18, Z22, Z19, Z26, Z23, Z16, Z20, Z29, Z17, Z27, Z28, Z21, Z25, Z30, Z31, Z24)
	ROUND(Z19, Z20, Z26, Z28, Z29, Z18, Z23, Z30, Z22, Z21, Z25, Z16, Z27, Z31, Z24, Z17)
	ROUND(Z26, Z23, Z28, Z25, Z30, Z19, Z29, Z31, Z20, Z16, Z27, Z18, Z21, Z24, Z17, Z22)
	ROUND(Z28, Z29, Z25, Z27, Z31, Z26, Z30, Z24, Z23, Z18, Z21, Z19, Z16, Z17, Z22, Z20)
	ROUND(Z25, Z30, Z27, Z21, Z24, Z28, Z31, Z17, Z29, Z19, Z16, Z26, Z18, Z22, Z20, Z23)
	ROUND(Z27, Z31, Z21, Z16, Z17, Z25, Z24, Z22, Z30, Z26, Z18, Z28, Z19, Z20, Z23, Z29)
	VPXORD Z8, Z0, Z0
	VPXORD Z9, Z1, Z1
	VPXORD Z10, Z2, Z2
	VPXORD Z11, Z3, Z3
	VPXORD Z12, Z4, Z4
	VPXORD Z13, Z5, Z5
	VPXORD Z14, Z6, Z6
	VPXORD Z15, Z7, Z7
	ADDQ $64, R12
	ADDQ $64, R13
	ADDQ $64, R14
	ADDQ $64, R15
	MOVL BX, DX
	DECQ CX
	JNZ  block

	TURN(Z0, Z1, Z2, Z3, Z8, Z9, Z10, Z11, Z16, Z17, Z18, Z19)
	TURN(Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z20, Z21, Z22, Z23)
	STORE(Z16, 0, 0)
	STORE(Z17, 1, 0)
	STORE(Z18, 2, 0)
	STORE(Z19, 3, 0)
	STORE(Z20, 0, 16)
	STORE(Z21, 1, 16)
	STORE(Z22, 2, 16)
	STORE(Z23, 3, 16)
	VZEROUPPER
	RET
