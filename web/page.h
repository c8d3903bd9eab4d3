/* SPDX-License-Identifier: MIT
 * page.h - what the two halves of the page's C share: page.c (the lesson) and page_files.c (files that were dropped on it). What JavaScript may call
 * is marked EXPORT, stands in one of them, and is declared nowhere else.
 */
#ifndef HEED_WEB_PAGE_H
#define HEED_WEB_PAGE_H

#include "explore_lessons.h"

#define EXPORT __attribute__((used, visibility("default")))

extern struct explore explore;
extern char message[256];

/* The context, made at the first call. False: heed_error_message() says why. */
bool page_context(void);
/* Weights and output by the chosen row, and how far they are from the definition's. 0: done. */
int page_compute(void);

#endif
