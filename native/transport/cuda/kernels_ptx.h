// Made by scripts/ptx.py of kernels.cu. Not to be edited.
#pragma once

namespace mooncake::cuda {

inline constexpr char KERNELS[] = R"ptx(.version 7.8
.target sm_80
.address_size 64
.global .align 4 .u32 _ZN41_INTERNAL_00000000_10_kernels_cu_6ef5fed043_GLOBAL__N__00000000_10_kernels_cu_6ef5fed05DEPTHE = 8;
.visible .entry mooncake_copy(
	.param .u64 mooncake_copy_param_0,
	.param .u32 mooncake_copy_param_1
)
.maxntid 512, 1, 1
{
	.reg .pred 	%p<17>;
	.reg .b16 	%rs<2>;
	.reg .b32 	%r<99>;
	.reg .b64 	%rd<122>;
	ld.param.u64 	%rd49, [mooncake_copy_param_0];
	ld.param.u32 	%r4, [mooncake_copy_param_1];
	mov.u32 	%r98, %ctaid.x;
	setp.ge.u32 	%p1, %r98, %r4;
	@%p1 bra 	$L__BB0_26;
	cvta.to.global.u64 	%rd50, %rd49;
	mul.wide.u32 	%rd51, %r98, 24;
	add.s64 	%rd52, %rd50, %rd51;
	ld.global.u64 	%rd111, [%rd52];
	ld.global.u64 	%rd110, [%rd52+8];
	ld.global.u64 	%rd109, [%rd52+16];
	mov.u32 	%r5, %ntid.x;
	mul.lo.s32 	%r6, %r5, 7;
	cvt.u64.u32 	%rd4, %r6;
	shl.b32 	%r7, %r5, 3;
	cvt.u64.u32 	%rd5, %r7;
	cvt.u64.u32 	%rd6, %r5;
	shl.b32 	%r8, %r5, 1;
	cvt.u64.u32 	%rd7, %r8;
	shl.b32 	%r9, %r5, 2;
	cvt.u64.u32 	%rd8, %r9;
	mul.lo.s32 	%r10, %r5, 5;
	cvt.u64.u32 	%rd9, %r10;
	mul.lo.s32 	%r11, %r5, 6;
	cvt.u64.u32 	%rd10, %r11;
	mov.u32 	%r12, %nctaid.x;
	shl.b64 	%rd93, %rd7, 4;
	shl.b64 	%rd95, %rd8, 4;
	shl.b64 	%rd96, %rd9, 4;
	shl.b64 	%rd97, %rd10, 4;
$L__BB0_2:
	add.s32 	%r98, %r98, %r12;
	setp.ge.u32 	%p2, %r98, %r4;
	mov.u64 	%rd112, 0;
	mov.u64 	%rd113, %rd112;
	mov.u64 	%rd114, %rd112;
	@%p2 bra 	$L__BB0_4;
	mul.wide.u32 	%rd57, %r98, 24;
	add.s64 	%rd58, %rd50, %rd57;
	ld.global.u64 	%rd114, [%rd58+16];
	ld.global.u64 	%rd113, [%rd58+8];
	ld.global.u64 	%rd112, [%rd58];
$L__BB0_4:
	or.b64  	%rd20, %rd111, %rd110;
	and.b64  	%rd59, %rd20, 15;
	setp.eq.s64 	%p3, %rd59, 0;
	@%p3 bra 	$L__BB0_15;
	and.b64  	%rd60, %rd20, 7;
	setp.eq.s64 	%p4, %rd60, 0;
	@%p4 bra 	$L__BB0_11;
	and.b64  	%rd62, %rd20, 3;
	setp.ne.s64 	%p5, %rd62, 0;
	mov.u64 	%rd120, 0;
	@%p5 bra 	$L__BB0_22;
	shr.u64 	%rd21, %rd109, 2;
	mov.u32 	%r13, %tid.x;
	cvt.u64.u32 	%rd115, %r13;
	setp.le.u64 	%p6, %rd21, %rd115;
	@%p6 bra 	$L__BB0_10;
$L__BB0_9:
	shl.b64 	%rd64, %rd115, 2;
	add.s64 	%rd65, %rd111, %rd64;
	ld.u32 	%r15, [%rd65];
	add.s64 	%rd66, %rd110, %rd64;
	st.u32 	[%rd66], %r15;
	add.s64 	%rd115, %rd115, %rd6;
	setp.lt.u64 	%p7, %rd115, %rd21;
	@%p7 bra 	$L__BB0_9;
$L__BB0_10:
	and.b64  	%rd120, %rd109, -4;
	bra.uni 	$L__BB0_22;
$L__BB0_15:
	shr.u64 	%rd72, %rd109, 4;
	mov.u32 	%r18, %tid.x;
	cvt.u64.u32 	%rd118, %r18;
	add.s64 	%rd74, %rd118, %rd4;
	setp.ge.u64 	%p10, %rd74, %rd72;
	@%p10 bra 	$L__BB0_18;
	cvt.u64.u32 	%rd118, %r18;
	mul.lo.s32 	%r23, %r5, 3;
	cvt.u64.u32 	%rd33, %r23;
$L__BB0_17:
	shl.b64 	%rd91, %rd118, 4;
	add.s64 	%rd75, %rd111, %rd91;
	ld.global.L1::no_allocate.v4.u32 {%r24, %r25, %r26, %r27}, [%rd75];
	shl.b64 	%rd92, %rd6, 4;
	add.s64 	%rd76, %rd75, %rd92;
	ld.global.L1::no_allocate.v4.u32 {%r28, %r29, %r30, %r31}, [%rd76];
	add.s64 	%rd77, %rd75, %rd93;
	ld.global.L1::no_allocate.v4.u32 {%r32, %r33, %r34, %r35}, [%rd77];
	shl.b64 	%rd94, %rd33, 4;
	add.s64 	%rd78, %rd75, %rd94;
	ld.global.L1::no_allocate.v4.u32 {%r36, %r37, %r38, %r39}, [%rd78];
	add.s64 	%rd79, %rd75, %rd95;
	ld.global.L1::no_allocate.v4.u32 {%r40, %r41, %r42, %r43}, [%rd79];
	add.s64 	%rd80, %rd75, %rd96;
	ld.global.L1::no_allocate.v4.u32 {%r44, %r45, %r46, %r47}, [%rd80];
	add.s64 	%rd81, %rd75, %rd97;
	ld.global.L1::no_allocate.v4.u32 {%r48, %r49, %r50, %r51}, [%rd81];
	shl.b64 	%rd98, %rd4, 4;
	add.s64 	%rd82, %rd75, %rd98;
	ld.global.L1::no_allocate.v4.u32 {%r52, %r53, %r54, %r55}, [%rd82];
	add.s64 	%rd83, %rd110, %rd91;
	st.global.cs.v4.u32 [%rd83], {%r24, %r25, %r26, %r27};
	add.s64 	%rd84, %rd83, %rd92;
	st.global.cs.v4.u32 [%rd84], {%r28, %r29, %r30, %r31};
	add.s64 	%rd85, %rd83, %rd93;
	st.global.cs.v4.u32 [%rd85], {%r32, %r33, %r34, %r35};
	add.s64 	%rd86, %rd83, %rd94;
	st.global.cs.v4.u32 [%rd86], {%r36, %r37, %r38, %r39};
	add.s64 	%rd87, %rd83, %rd95;
	st.global.cs.v4.u32 [%rd87], {%r40, %r41, %r42, %r43};
	add.s64 	%rd88, %rd83, %rd96;
	st.global.cs.v4.u32 [%rd88], {%r44, %r45, %r46, %r47};
	add.s64 	%rd89, %rd83, %rd97;
	st.global.cs.v4.u32 [%rd89], {%r48, %r49, %r50, %r51};
	add.s64 	%rd90, %rd83, %rd98;
	st.global.cs.v4.u32 [%rd90], {%r52, %r53, %r54, %r55};
	add.s64 	%rd118, %rd118, %rd5;
	add.s64 	%rd99, %rd118, %rd4;
	setp.lt.u64 	%p11, %rd99, %rd72;
	@%p11 bra 	$L__BB0_17;
$L__BB0_18:
	setp.ge.u64 	%p12, %rd118, %rd72;
	@%p12 bra 	$L__BB0_21;
$L__BB0_20:
	shl.b64 	%rd104, %rd118, 4;
	add.s64 	%rd103, %rd110, %rd104;
	add.s64 	%rd102, %rd111, %rd104;
	ld.global.L1::no_allocate.v4.u32 {%r88, %r89, %r90, %r91}, [%rd102];
	st.global.cs.v4.u32 [%rd103], {%r88, %r89, %r90, %r91};
	add.s64 	%rd118, %rd118, %rd6;
	setp.lt.u64 	%p13, %rd118, %rd72;
	@%p13 bra 	$L__BB0_20;
$L__BB0_21:
	and.b64  	%rd120, %rd109, -16;
	bra.uni 	$L__BB0_22;
$L__BB0_11:
	shr.u64 	%rd26, %rd109, 3;
	mov.u32 	%r16, %tid.x;
	cvt.u64.u32 	%rd116, %r16;
	setp.le.u64 	%p8, %rd26, %rd116;
	@%p8 bra 	$L__BB0_14;
$L__BB0_13:
	shl.b64 	%rd68, %rd116, 3;
	add.s64 	%rd69, %rd111, %rd68;
	ld.u64 	%rd70, [%rd69];
	add.s64 	%rd71, %rd110, %rd68;
	st.u64 	[%rd71], %rd70;
	add.s64 	%rd116, %rd116, %rd6;
	setp.lt.u64 	%p9, %rd116, %rd26;
	@%p9 bra 	$L__BB0_13;
$L__BB0_14:
	and.b64  	%rd120, %rd109, -8;
$L__BB0_22:
	mov.u32 	%r96, %tid.x;
	cvt.u64.u32 	%rd121, %r96;
	sub.s64 	%rd42, %rd109, %rd120;
	setp.le.u64 	%p14, %rd42, %rd121;
	@%p14 bra 	$L__BB0_25;
$L__BB0_24:
	add.s64 	%rd106, %rd121, %rd120;
	add.s64 	%rd107, %rd111, %rd106;
	ld.u8 	%rs1, [%rd107];
	add.s64 	%rd108, %rd110, %rd106;
	st.u8 	[%rd108], %rs1;
	add.s64 	%rd121, %rd121, %rd6;
	setp.lt.u64 	%p15, %rd121, %rd42;
	@%p15 bra 	$L__BB0_24;
$L__BB0_25:
	setp.lt.u32 	%p16, %r98, %r4;
	mov.u64 	%rd109, %rd114;
	mov.u64 	%rd110, %rd113;
	mov.u64 	%rd111, %rd112;
	@%p16 bra 	$L__BB0_2;
$L__BB0_26:
	ret;
}
)ptx";

}  // namespace mooncake::cuda
