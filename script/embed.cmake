# cmake -DOUT=file.c "-DFILES=a.cl;b.cl" [-DNAME=kernel_text] -P embed.cmake
# The bytes of every file as an array, and a table of name, text and length: `struct kernel_text {const char *name, *text; size_t length;}`
# and `kernel_texts`, ended by a row without name. Byte arrays, because string literals are limited in length.
if(NOT NAME)
  set(NAME kernel_text)
endif()
set(arrays "")
set(table "")
foreach(file ${FILES})
  get_filename_component(name "${file}" NAME)
  string(MAKE_C_IDENTIFIER "${name}" symbol)
  file(READ "${file}" hex HEX)
  string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," hex "${hex}")
  string(APPEND arrays "static const unsigned char ${symbol}[] = {\n${hex}0x00};\n")
  string(APPEND table "    {\"${name}\", (const char *)${symbol}, sizeof ${symbol} - 1},\n")
endforeach()
file(WRITE "${OUT}" "/* Made by script/embed.cmake; do not edit. */
#include <stddef.h>
struct ${NAME} {
    const char *name, *text;
    size_t length;
};
${arrays}extern const struct ${NAME} ${NAME}s[];
const struct ${NAME} ${NAME}s[] = {
${table}    {NULL, NULL, 0},
};
")
