/* base/check -- see check.h. */
#include "base/check.h"

#ifdef ASIDE_DEBUG
#include <stdio.h>
#include <stdlib.h>

void check_failed(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: libaside invariant broken: %s\n", file, line, what);
    abort();
}
#else
/* ISO C wants something in every translation unit. */
typedef int check_is_empty_in_release_builds;
#endif
