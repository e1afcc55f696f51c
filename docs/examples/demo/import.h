/*
 * import.h -- the text files of the Unicode character database, as tables of an SQLite file.
 */
#ifndef IMPORT_H
#define IMPORT_H

#include <stddef.h>

/* Makes the file db_path. version gets "15.0.0" or the like. Errors end the program. */
void import_unicode(const char *db_path, const char *unicode_dir, char *version,
                    size_t version_size);

#endif
