/* SPDX-License-Identifier: MIT
 * fault_layer.h - what a test tells the layer between the OpenCL loader and the driver, and what it learns: tests/fault_layer.c.
 */
#ifndef HEED_FAULT_LAYER_H
#define HEED_FAULT_LAYER_H

#include <stdatomic.h>

/* What becomes of the call that is hit: it fails with `code`; it is passed on after `code` milliseconds; or (a launch) it succeeds and does nothing. */
enum fault_how { FAULT_FAILS, FAULT_SLEEPS, FAULT_DROPS };

/* What a query of a platform, a device or a kernel answers instead of the truth, its status being a success: bytes of 0; bytes of 255 (no number makes
 * sense, no text ends); `value` in every element; `text`; a size of 0 or of SIZE_MAX; nothing at all. */
enum fault_lie { LIE_NONE, LIE_ZERO, LIE_ONES, LIE_VALUE, LIE_TEXT, LIE_SIZE_ZERO, LIE_SIZE_HUGE, LIE_NOTHING, LIES };

enum fault_kind { FAULT_CONTEXT, FAULT_QUEUE, FAULT_MEMORY, FAULT_PROGRAM, FAULT_KERNEL, FAULT_EVENT, FAULT_KINDS };

/* Found by dlsym as "fault_state". Set `at` last: it arms the layer. */
struct fault_state {
    atomic_long calls;        /* of the entry point `only`, or of all; reset by the test */
    atomic_long at;           /* this call fails, counted from 1; 0 = none */
    atomic_int forever;       /* and every later one */
    atomic_int code;          /* with this error, or milliseconds */
    atomic_int how;           /* enum fault_how */
    char only[64];            /* entry point, "" = all */
    atomic_long hits;         /* calls that were hit */
    atomic_long alive[FAULT_KINDS];
    atomic_long builds, launches, buffers; /* successful clBuildProgram, clEnqueueNDRangeKernel, clCreateBuffer without host memory */
    atomic_long sources;      /* successful clCreateProgramWithSource */
    atomic_int lie;           /* enum fault_lie; set last */
    char lie_entry[64];       /* clGetDeviceInfo, clGetPlatformInfo or clGetKernelWorkGroupInfo */
    unsigned lie_what;        /* the parameter; 0 = every one */
    unsigned long lie_value;
    char lie_text[128];
    atomic_long lies;         /* told */
};

#endif
