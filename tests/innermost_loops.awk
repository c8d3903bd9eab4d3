# SPDX-License-Identifier: MIT
# Of objdump -d --no-show-raw-insn, of x86 or 64-bit ARM: FUNCTION INSTRUCTIONS MULTIPLY_ADDS STACK of each innermost loop with at least 4 vector multiply-adds;
# STACK: instructions that move a vector to or from the stack. tests/test_loops.sh reads it.
function finish(  i, j, inner, n, fma, stack, frame, own) {
    frame = "sp" # or x29, where it is no register like others
    for (n = 1; n <= count; n++) if (text[n] ~ /^(mov|add)\tx29, sp/) frame = "(sp|x29)"
    own = "%rsp" # or %rbp, likewise
    for (n = 1; n <= count; n++) if (text[n] ~ /^mov +%rsp,%rbp/) own = "(%rsp|%rbp)"
    for (i = 1; i <= loops; i++) {
        inner = 1
        for (j = 1; j <= loops; j++) if (j != i && from[j] >= from[i] && to[j] <= to[i] && !(from[j] == from[i] && to[j] == to[i])) inner = 0
        if (!inner) continue
        fma = stack = 0
        for (n = from[i]; n <= to[i]; n++) {
            if (text[n] ~ /^(vfn?m(add|sub)|vdpbf16|fn?ml[as]\t|bf(dot|mmla)\t|fn?m(ad|sb)\t)/) fma++
            if (text[n] ~ /%[xyz]mm/ && text[n] ~ "\\(" own "[,)]" && text[n] !~ /^vbroadcast|{1to/) stack++ # one number of an array is no vector
            if (text[n] ~ "^(ld|st)[a-z0-9]*\t[^[]*[zqvds][0-9][^[]*\\[" frame) stack++
        }
        if (fma >= 4) print function_name, to[i] - from[i] + 1, fma, stack
    }
    loops = count = 0
    delete index_of
}
/^[0-9a-f]+ <.*>:$/ { finish(); function_name = $2; gsub(/[<>:]/, "", function_name); next }
/^ +[0-9a-f]+:\t/ {
    address = $1; sub(/:/, "", address)
    line = $0; sub(/^ +[0-9a-f]+:\t/, "", line)
    text[++count] = line
    index_of[address] = count
    if (line ~ /^(j|b\.|cbn?z\t|tbn?z\t)/) { # the target stands last, before its name
        target = line; sub(/ *<.*/, "", target); sub(/.*[ \t]/, "", target)
        if (target in index_of) { from[++loops] = index_of[target]; to[loops] = count }
    }
}
END { finish() }
