#include "textflag.h"

// Eight lanes, with AVX2. State words v0..v15 are Y0..Y15; a word of lane i is in
// element i. Message words m0..m15 are in memory at R14, 32 bytes each, and behind
// them v8: its register is what rotations are made with.

DATA iv<>+0x00(SB)/4, $0x6A09E667
DATA iv<>+0x04(SB)/4, $0xBB67AE85
DATA iv<>+0x08(SB)/4, $0x3C6EF372
DATA iv<>+0x0c(SB)/4, $0xA54FF53A
DATA iv<>+0x10(SB)/4, $0x510E527F
DATA iv<>+0x14(SB)/4, $0x9B05688C
DATA iv<>+0x18(SB)/4, $0x1F83D9AB
DATA iv<>+0x1c(SB)/4, $0x5BE0CD19
GLOBL iv<>(SB), RODATA|NOPTR, $32

// Rotations of words to the right by 16 and by 8 bits, for VPSHUFB.
DATA rot16<>+0x00(SB)/8, $0x0504070601000302
DATA rot16<>+0x08(SB)/8, $0x0d0c0f0e09080b0a
DATA rot16<>+0x10(SB)/8, $0x0504070601000302
DATA rot16<>+0x18(SB)/8, $0x0d0c0f0e09080b0a
GLOBL rot16<>(SB), RODATA|NOPTR, $32
DATA rot8<>+0x00(SB)/8, $0x0407060500030201
DATA rot8<>+0x08(SB)/8, $0x0c0f0e0d080b0a09
DATA rot8<>+0x10(SB)/8, $0x0407060500030201
DATA rot8<>+0x18(SB)/8, $0x0c0f0e0d080b0a09
GLOBL rot8<>(SB), RODATA|NOPTR, $32

// COLUMNS is four quarter rounds side by side, on columns.
#define COLUMNS(x0, x1, x2, x3, y0, y1, y2, y3) \
	VPADDD (x0*32)(R14), Y0, Y0; VPADDD (x1*32)(R14), Y1, Y1; VPADDD (x2*32)(R14), Y2, Y2; VPADDD (x3*32)(R14), Y3, Y3; \
	VPADDD Y4, Y0, Y0; VPADDD Y5, Y1, Y1; VPADDD Y6, Y2, Y2; VPADDD Y7, Y3, Y3; \
	VPXOR Y0, Y12, Y12; VPXOR Y1, Y13, Y13; VPXOR Y2, Y14, Y14; VPXOR Y3, Y15, Y15; \
	VPSHUFB rot16<>(SB), Y12, Y12; VPSHUFB rot16<>(SB), Y13, Y13; VPSHUFB rot16<>(SB), Y14, Y14; VPSHUFB rot16<>(SB), Y15, Y15; \
	VPADDD 512(R14), Y12, Y8; VPADDD Y13, Y9, Y9; VPADDD Y14, Y10, Y10; VPADDD Y15, Y11, Y11; \
	VPXOR Y8, Y4, Y4; VPXOR Y9, Y5, Y5; VPXOR Y10, Y6, Y6; VPXOR Y11, Y7, Y7; \
	VMOVDQU Y8, 512(R14); \
	VPSRLD $12, Y4, Y8; VPSLLD $20, Y4, Y4; VPOR Y8, Y4, Y4; \
	VPSRLD $12, Y5, Y8; VPSLLD $20, Y5, Y5; VPOR Y8, Y5, Y5; \
	VPSRLD $12, Y6, Y8; VPSLLD $20, Y6, Y6; VPOR Y8, Y6, Y6; \
	VPSRLD $12, Y7, Y8; VPSLLD $20, Y7, Y7; VPOR Y8, Y7, Y7; \
	VPADDD (y0*32)(R14), Y0, Y0; VPADDD (y1*32)(R14), Y1, Y1; VPADDD (y2*32)(R14), Y2, Y2; VPADDD (y3*32)(R14), Y3, Y3; \
	VPADDD Y4, Y0, Y0; VPADDD Y5, Y1, Y1; VPADDD Y6, Y2, Y2; VPADDD Y7, Y3, Y3; \
	VPXOR Y0, Y12, Y12; VPXOR Y1, Y13, Y13; VPXOR Y2, Y14, Y14; VPXOR Y3, Y15, Y15; \
	VPSHUFB rot8<>(SB), Y12, Y12; VPSHUFB rot8<>(SB), Y13, Y13; VPSHUFB rot8<>(SB), Y14, Y14; VPSHUFB rot8<>(SB), Y15, Y15; \
	VPADDD 512(R14), Y12, Y8; VPADDD Y13, Y9, Y9; VPADDD Y14, Y10, Y10; VPADDD Y15, Y11, Y11; \
	VPXOR Y8, Y4, Y4; VPXOR Y9, Y5, Y5; VPXOR Y10, Y6, Y6; VPXOR Y11, Y7, Y7; \
	VMOVDQU Y8, 512(R14); \
	VPSRLD $7, Y4, Y8; VPSLLD $25, Y4, Y4; VPOR Y8, Y4, Y4; \
	VPSRLD $7, Y5, Y8; VPSLLD $25, Y5, Y5; VPOR Y8, Y5, Y5; \
	VPSRLD $7, Y6, Y8; VPSLLD $25, Y6, Y6; VPOR Y8, Y6, Y6; \
	VPSRLD $7, Y7, Y8; VPSLLD $25, Y7, Y7; VPOR Y8, Y7, Y7

// DIAGONALS is the same on diagonals.
#define DIAGONALS(x0, x1, x2, x3, y0, y1, y2, y3) \
	VPADDD (x0*32)(R14), Y0, Y0; VPADDD (x1*32)(R14), Y1, Y1; VPADDD (x2*32)(R14), Y2, Y2; VPADDD (x3*32)(R14), Y3, Y3; \
	VPADDD Y5, Y0, Y0; VPADDD Y6, Y1, Y1; VPADDD Y7, Y2, Y2; VPADDD Y4, Y3, Y3; \
	VPXOR Y0, Y15, Y15; VPXOR Y1, Y12, Y12; VPXOR Y2, Y13, Y13; VPXOR Y3, Y14, Y14; \
	VPSHUFB rot16<>(SB), Y15, Y15; VPSHUFB rot16<>(SB), Y12, Y12; VPSHUFB rot16<>(SB), Y13, Y13; VPSHUFB rot16<>(SB), Y14, Y14; \
	VPADDD Y15, Y10, Y10; VPADDD Y12, Y11, Y11; VPADDD 512(R14), Y13, Y8; VPADDD Y14, Y9, Y9; \
	VPXOR Y10, Y5, Y5; VPXOR Y11, Y6, Y6; VPXOR Y8, Y7, Y7; VPXOR Y9, Y4, Y4; \
	VMOVDQU Y8, 512(R14); \
	VPSRLD $12, Y5, Y8; VPSLLD $20, Y5, Y5; VPOR Y8, Y5, Y5; \
	VPSRLD $12, Y6, Y8; VPSLLD $20, Y6, Y6; VPOR Y8, Y6, Y6; \
	VPSRLD $12, Y7, Y8; VPSLLD $20, Y7, Y7; VPOR Y8, Y7, Y7; \
	VPSRLD $12, Y4, Y8; VPSLLD $20, Y4, Y4; VPOR Y8, Y4, Y4; \
	VPADDD (y0*32)(R14), Y0, Y0; VPADDD (y1*32)(R14), Y1, Y1; VPADDD (y2*32)(R14), Y2, Y2; VPADDD (y3*32)(R14), Y3, Y3; \
	VPADDD Y5, Y0, Y0; VPADDD Y6, Y1, Y1; VPADDD Y7, Y2, Y2; VPADDD Y4, Y3, Y3; \
	VPXOR Y0, Y15, Y15; VPXOR Y1, Y12, Y12; VPXOR Y2, Y13, Y13; VPXOR Y3, Y14, Y14; \
	VPSHUFB rot8<>(SB), Y15, Y15; VPSHUFB rot8<>(SB), Y12, Y12; VPSHUFB rot8<>(SB), Y13, Y13; VPSHUFB rot8<>(SB), Y14, Y14; \
	VPADDD Y15, Y10, Y10; VPADDD Y12, Y11, Y11; VPADDD 512(R14), Y13, Y8; VPADDD Y14, Y9, Y9; \
	VPXOR Y10, Y5, Y5; VPXOR Y11, Y6, Y6; VPXOR Y8, Y7, Y7; VPXOR Y9, Y4, Y4; \
	VMOVDQU Y8, 512(R14); \
	VPSRLD $7, Y5, Y8; VPSLLD $25, Y5, Y5; VPOR Y8, Y5, Y5; \
	VPSRLD $7, Y6, Y8; VPSLLD $25, Y6, Y6; VPOR Y8, Y6, Y6; \
	VPSRLD $7, Y7, Y8; VPSLLD $25, Y7, Y7; VPOR Y8, Y7, Y7; \
	VPSRLD $7, Y4, Y8; VPSLLD $25, Y4, Y4; VPOR Y8, Y4, Y4

// ROUND takes the numbers of the message words in the order of the round's
// permutation.
#define ROUND(m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13, m14, m15) \
	COLUMNS(m0, m2, m4, m6, m1, m3, m5, m7); \
	DIAGONALS(m8, m10, m12, m14, m9, m11, m13, m15)

// ROWS loads 16 bytes at off of rows k and k+4 into y; k is in the index.
#define ROWS(off, index, x, y) \
	VMOVDQU off(R12)(index), x; \
	VINSERTI128 $1, off(R13)(index), y, y

// TURN transposes each 4x4 block of words of y0..y3 into w0..w3, by u0..u3.
#define TURN(y0, y1, y2, y3, u0, u1, u2, u3, w0, w1, w2, w3) \
	VPUNPCKLDQ y1, y0, u0; VPUNPCKHDQ y1, y0, u1; \
	VPUNPCKLDQ y3, y2, u2; VPUNPCKHDQ y3, y2, u3; \
	VPUNPCKLQDQ u2, u0, w0; VPUNPCKHQDQ u2, u0, w1; \
	VPUNPCKLQDQ u3, u1, w2; VPUNPCKHQDQ u3, u1, w3

// WORDS loads four words of the message of all lanes, at off of each.
#define WORDS(off) \
	ROWS(off, AX*1, X8, Y8); \
	ROWS(off, R8*1, X9, Y9); \
	ROWS(off, R8*2, X10, Y10); \
	ROWS(off, R9*1, X11, Y11); \
	TURN(Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15, Y8, Y9, Y10, Y11); \
	VMOVDQU Y8, (off*8)(R14); \
	VMOVDQU Y9, (off*8+32)(R14); \
	VMOVDQU Y10, (off*8+64)(R14); \
	VMOVDQU Y11, (off*8+96)(R14)

// STORE writes four words of the values of lanes k and k+4.
#define STORE(x, y, k, off) \
	VMOVDQU x, (k*32+off)(DI); \
	VEXTRACTI128 $1, y, (k*32+off+128)(DI)

// func compress8(out *CV, in *byte, stride, blocks uint64, counter *uint32, high, flags, first, last uint32)
TEXT ·compress8(SB), 0, $576-56
	MOVQ out+0(FP), DI
	MOVQ in+8(FP), R12
	MOVQ stride+16(FP), R8
	MOVQ blocks+24(FP), CX
	MOVQ counter+32(FP), SI
	MOVL high+40(FP), R10
	MOVL flags+44(FP), BX
	MOVL first+48(FP), DX
	MOVL last+52(FP), R11
	LEAQ 31(SP), R14
	ANDQ $~31, R14
	XORL AX, AX
	LEAQ (R8)(R8*2), R9
	LEAQ (R12)(R8*4), R13
	ORL  BX, DX
	VPBROADCASTD iv<>+0x00(SB), Y0
	VPBROADCASTD iv<>+0x04(SB), Y1
	VPBROADCASTD iv<>+0x08(SB), Y2
	VPBROADCASTD iv<>+0x0c(SB), Y3
	VPBROADCASTD iv<>+0x10(SB), Y4
	VPBROADCASTD iv<>+0x14(SB), Y5
	VPBROADCASTD iv<>+0x18(SB), Y6
	VPBROADCASTD iv<>+0x1c(SB), Y7

block:
	CMPQ CX, $1
	JNE  load
	ORL  R11, DX

load:
	WORDS(0)
	WORDS(16)
	WORDS(32)
	WORDS(48)
	VPBROADCASTD iv<>+0x00(SB), Y8
	VMOVDQU      Y8, 512(R14)
	VPBROADCASTD iv<>+0x04(SB), Y9
	VPBROADCASTD iv<>+0x08(SB), Y10
	VPBROADCASTD iv<>+0x0c(SB), Y11
	VMOVDQU      (SI), Y12
	VMOVD        R10, X13
	VPBROADCASTD X13, Y13
	MOVL         $64, AX
	VMOVD        AX, X14
	VPBROADCASTD X14, Y14
	XORL         AX, AX
	VMOVD        DX, X15
	VPBROADCASTD X15, Y15
	ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
	ROUND(2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
	ROUND(3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1)
	ROUND(10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6)
	ROUND(12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4)
	ROUND(9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7)
	ROUND(11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13)
	VPXOR 512(R14), Y0, Y0
	VPXOR Y9, Y1, Y1
	VPXOR Y10, Y2, Y2
	VPXOR Y11, Y3, Y3
	VPXOR Y12, Y4, Y4
	VPXOR Y13, Y5, Y5
	VPXOR Y14, Y6, Y6
	VPXOR Y15, Y7, Y7
	ADDQ $64, R12
	ADDQ $64, R13
	MOVL BX, DX
	DECQ CX
	JNZ  block

	TURN(Y0, Y1, Y2, Y3, Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15)
	STORE(X12, Y12, 0, 0)
	STORE(X13, Y13, 1, 0)
	STORE(X14, Y14, 2, 0)
	STORE(X15, Y15, 3, 0)
	TURN(Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15)
	STORE(X12, Y12, 0, 16)
	STORE(X13, Y13, 1, 16)
	STORE(X14, Y14, 2, 16)
	STORE(X15, Y15, 3, 16)
	VZEROUPPER
	RET
