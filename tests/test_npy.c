/* SPDX-License-Identifier: MIT
 * test_npy.c - .npy files: what is written is read back; every damage to a file is refused, none of it believed.
 */
#include "counting.h"
#include "npy.h"
#include <unistd.h>

static size_t file_of(const char *header, size_t data_bytes, unsigned char *file, unsigned version)
{
    const size_t length = strlen(header);
    memcpy(file, "\x93NUMPY", 6);
    file[6] = (unsigned char)version;
    file[7] = 0;
    file[8] = (unsigned char)length;
    file[9] = (unsigned char)(length >> 8);
    size_t at = 10;
    if (version == 2) file[10] = file[11] = 0, at = 12;
    memcpy(file + at, header, length);
    memset(file + at + length, 1, data_bytes);
    return at + length + data_bytes;
}

Test(npy, round_trip)
{
    struct counts c = {0};
    char path[] = "/tmp/heed-npy-XXXXXX", why[200];
    const int file = mkstemp(path);
    cr_assert(file >= 0);
    close(file);
    unsigned char data[480];
    for (size_t n = 0; n < sizeof data; n++) data[n] = (unsigned char)(n * 37);
    const int64_t shapes[4][3] = {{0}, {7, 0, 0}, {2, 3, 0}, {4, 3, 5}};
    for (int type = 0; type < NPY_TYPES; type++)
        for (int32_t rank = 0; rank < 4; rank++) {
            struct npy array;
            bool good = npy_write(path, (enum npy_type)type, rank, shapes[rank], data, why, sizeof why) && npy_read(path, &array, why, sizeof why);
            good = good && array.type == (enum npy_type)type && array.rank == rank && (uintptr_t)array.data % 64 == 0;
            for (int32_t n = 0; good && n < rank; n++) good = array.shape[n] == shapes[rank][n];
            good = good && !memcmp(array.data, data, array.bytes);
            count_check(&c, good, "test_npy.c: written and read back");
            if (good) npy_free(&array);
        }
    const int64_t empty[2] = {3, 0};
    struct npy array;
    count_check(&c, npy_write(path, NPY_F4, 2, empty, NULL, why, sizeof why) && npy_read(path, &array, why, sizeof why) && array.count == 0, "test_npy.c: no elements");
    npy_free(&array);
    npy_free(&array);
    count_check(&c, !npy_read("/no/such/file.npy", &array, why, sizeof why) && strstr(why, "/no/such"), "test_npy.c: a missing file is named");
    unlink(path);
    count_end(&c);
}

Test(npy, headers)
{
    struct counts c = {0};
    unsigned char file[4096];
    char why[200];
    struct npy array;
    static const struct {
        const char *header;
        size_t bytes;
        bool good;
    } headers[] = {
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", 24, true},
        {"{'shape': (2, 3), 'fortran_order': False, 'descr': '<f4'}", 24, true},
        {"{\"descr\": \"|u1\", \"fortran_order\": False, \"shape\": (5,)}", 5, true},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': ()}", 8, true},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L), }", 24, true},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 23, false},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 25, false},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }", 24, false},
        {"{'descr': '>f4', 'fortran_order': False, 'shape': (2, 3), }", 24, false},
        {"{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }", 24, false},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 3), }", 24, false},
        {"{'descr': '<f4', 'fortran_order': False}", 24, false},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), 'more': 1}", 24, false},
        {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}", 24, false},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 3), }", 24, false},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }", 24, false},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 1), }", 24, false},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (2305843009213693952,), }", 0, false},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }", 4, false},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), } and more", 24, false},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3", 24, false},
        {"{'descr': '<f4'", 24, false},
        {"", 24, false},
    };
    for (size_t n = 0; n < sizeof headers / sizeof *headers; n++)
        for (unsigned version = 1; version <= 3; version++) {
            const size_t bytes = file_of(headers[n].header, headers[n].bytes, file, version);
            const bool good = npy_parse(file, bytes, &array, why, sizeof why);
            count_check(&c, good == (headers[n].good && version < 3), headers[n].header);
            if (good) npy_free(&array);
        }
    count_end(&c);
}

/* Every cut and every flipped byte of a small file: refused, or read as an array of exactly the bytes that are there. */
Test(npy, damage)
{
    struct counts c = {0};
    unsigned char file[512], exact[512];
    char why[200];
    struct npy array;
    const size_t bytes = file_of("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", 24, file, 1);
    for (size_t n = 0; n < bytes; n++) {
        unsigned char *copy = malloc(n ? n : 1); /* so that sanitizers see a read beyond it */
        memcpy(copy, file, n);
        const bool good = npy_parse(copy, n, &array, why, sizeof why);
        count_check(&c, !good, "test_npy.c: a file that was cut is refused");
        free(copy);
    }
    for (size_t n = 0; n < bytes - 24; n++)
        for (int bit = 0; bit < 8; bit++) {
            memcpy(exact, file, bytes);
            exact[n] ^= (unsigned char)(1 << bit);
            const bool good = npy_parse(exact, bytes, &array, why, sizeof why);
            if (good) count_check(&c, array.bytes == 24, "test_npy.c: never more than the file holds");
            if (good) npy_free(&array);
        }
    count_end(&c);
}
