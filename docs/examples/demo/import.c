/*
 * import.c -- the text files of the Unicode character database, as tables of an SQLite file.
 *
 * All files look alike: a record a line, fields between semicolons, comments after '#'. So there is
 * one reader; what a line becomes is in the list `files`: an INSERT, and a function that binds it.
 */
#include "import.h"

#include <ctype.h>
#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

#define FIELDS 15 /* UnicodeData.txt has the most */

static const char schema[] =
    "PRAGMA journal_mode = OFF;"
    "PRAGMA synchronous = OFF;"
    "BEGIN;"
    "CREATE TABLE chars (cp INTEGER PRIMARY KEY, name TEXT, category TEXT, lowercase INTEGER);"
    "CREATE TABLE parts (cp INTEGER, place INTEGER, part INTEGER, PRIMARY KEY (cp, place))"
    "  WITHOUT ROWID;"
    "CREATE TABLE categories (code TEXT PRIMARY KEY, name TEXT) WITHOUT ROWID;"
    "CREATE TABLE blocks (low INTEGER PRIMARY KEY, high INTEGER, name TEXT);"
    "CREATE TABLE scripts (low INTEGER PRIMARY KEY, high INTEGER, name TEXT);"
    "CREATE TABLE ages (low INTEGER PRIMARY KEY, high INTEGER, version TEXT);"
    "CREATE TABLE aliases (cp INTEGER, alias TEXT);"
    "CREATE INDEX aliases_cp ON aliases (cp);";

/* ---- one line of a file ---------------------------------------------------------------------- */

static char *trim(char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    size_t len = strlen(text);
    while (len > 0 && isspace((unsigned char)text[len - 1]))
        text[--len] = '\0';
    return text;
}

/* Cuts line into trimmed fields; those it lacks are "". Returns how many it has. */
static int split(char *line, char *fields[FIELDS])
{
    static char nothing[] = "";
    int count = 0;
    line[strcspn(line, "#")] = '\0';
    line = trim(line);
    for (int i = 0; i < FIELDS; i++)
        fields[i] = nothing;
    if (line[0] == '\0')
        return 0;
    while (count < FIELDS && line != NULL)
        fields[count++] = trim(strsep(&line, ";"));
    return count;
}

static void bind_code(sqlite3_stmt *insert, int column, const char *hex)
{
    if (hex[0] == '\0')
        sqlite3_bind_null(insert, column);
    else
        sqlite3_bind_int64(insert, column, (sqlite3_int64)strtoul(hex, NULL, 16));
}

static void bind_text(sqlite3_stmt *insert, int column, const char *text)
{
    sqlite3_bind_text(insert, column, text, -1, SQLITE_TRANSIENT);
}

static void store(sqlite3_stmt *insert)
{
    if (sqlite3_step(insert) != SQLITE_DONE)
        die("SQLite (package libsqlite3-0): %s", sqlite3_errmsg(sqlite3_db_handle(insert)));
    sqlite3_reset(insert);
}

/* ---- what a line becomes --------------------------------------------------------------------- */

typedef void row_fn(sqlite3_stmt *insert, char *fields[FIELDS]);

/* "AC00;<Hangul Syllable, First>;...": an end of a range that has no names of its own. */
static int is_range(const char *name)
{
    return name[0] == '<' && strchr(name, ',') != NULL;
}

static void add_char(sqlite3_stmt *insert, char *fields[FIELDS])
{
    if (is_range(fields[1]))
        return;
    bind_code(insert, 1, fields[0]);
    bind_text(insert, 2, fields[1]);
    bind_text(insert, 3, fields[2]);
    bind_code(insert, 4, fields[13]);
    store(insert);
}

/* "<compat> 0066 0069": a tag, perhaps, and the code points that the character is made of. */
static void add_parts(sqlite3_stmt *insert, char *fields[FIELDS])
{
    char *rest = fields[5];
    int place = 0;
    for (char *part; (part = strsep(&rest, " ")) != NULL;) {
        if (part[0] == '<' || part[0] == '\0')
            continue;
        bind_code(insert, 1, fields[0]);
        sqlite3_bind_int(insert, 2, place++);
        bind_code(insert, 3, part);
        store(insert);
    }
}

/* "gc ; Lu ; Uppercase_Letter", among the values of other properties. */
static void add_category(sqlite3_stmt *insert, char *fields[FIELDS])
{
    if (strcmp(fields[0], "gc") != 0)
        return;
    bind_text(insert, 1, fields[1]);
    bind_text(insert, 2, fields[2]);
    store(insert);
}

/* "0041..005A ; Latin", or one code point only. */
static void add_range(sqlite3_stmt *insert, char *fields[FIELDS])
{
    const char *dots = strstr(fields[0], "..");
    bind_code(insert, 1, fields[0]);
    bind_code(insert, 2, dots != NULL ? dots + 2 : fields[0]);
    bind_text(insert, 3, fields[1]);
    store(insert);
}

static void add_alias(sqlite3_stmt *insert, char *fields[FIELDS])
{
    bind_code(insert, 1, fields[0]);
    bind_text(insert, 2, fields[1]);
    store(insert);
}

static const struct {
    const char *name;
    const char *insert;
    row_fn *add;
} files[] = {
    {"UnicodeData.txt", "INSERT INTO chars VALUES (?, ?, ?, ?)", add_char},
    {"UnicodeData.txt", "INSERT INTO parts VALUES (?, ?, ?)", add_parts},
    {"PropertyValueAliases.txt", "INSERT INTO categories VALUES (?, replace(?, '_', ' '))",
     add_category},
    {"Blocks.txt", "INSERT INTO blocks VALUES (?, ?, ?)", add_range},
    {"Scripts.txt", "INSERT INTO scripts VALUES (?, ?, replace(?, '_', ' '))", add_range},
    {"DerivedAge.txt", "INSERT INTO ages VALUES (?, ?, 'Unicode ' || ?)", add_range},
    {"NameAliases.txt", "INSERT INTO aliases VALUES (?, ?)", add_alias},
};

/* ---- files ----------------------------------------------------------------------------------- */

static FILE *open_file(const char *dir, const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        die("cannot read %s: %s\n"
            "demo: it is in the package unicode-data (Debian), unicode-ucd (Fedora) or\n"
            "demo: unicode-character-database (Alpine); --data DIR reads it from elsewhere",
            path, strerror(errno));
    return file;
}

static void import_file(sqlite3 *db, FILE *file, const char *insert_text, row_fn *add)
{
    char *line = NULL, *fields[FIELDS];
    size_t room = 0;
    sqlite3_stmt *insert;
    if (sqlite3_prepare_v2(db, insert_text, -1, &insert, NULL) != SQLITE_OK)
        die("SQLite (package libsqlite3-0): %s", sqlite3_errmsg(db));
    while (getline(&line, &room, file) > 0)
        if (split(line, fields) > 1)
            add(insert, fields);
    sqlite3_finalize(insert);
    free(line);
}

/* "# Scripts-15.0.0.txt" */
static void read_version(const char *dir, char *version, size_t size)
{
    char line[128] = "";
    FILE *file = open_file(dir, "Scripts.txt");
    char *number = fgets(line, sizeof line, file) != NULL ? strchr(line, '-') : NULL;
    char *end = number != NULL ? strstr(number, ".txt") : NULL;
    if (end != NULL)
        *end = '\0';
    snprintf(version, size, "%s", end != NULL ? number + 1 : "of unknown version");
    fclose(file);
}

static void execute(sqlite3 *db, const char *text)
{
    if (sqlite3_exec(db, text, NULL, NULL, NULL) != SQLITE_OK)
        die("SQLite (package libsqlite3-0): %s", sqlite3_errmsg(db));
}

void import_unicode(const char *db_path, const char *unicode_dir, char *version,
                    size_t version_size)
{
    sqlite3 *db;
    int rc = sqlite3_open(db_path, &db);
    if (rc != SQLITE_OK)
        die("SQLite (package libsqlite3-0) cannot make %s: %s", db_path, sqlite3_errstr(rc));
    read_version(unicode_dir, version, version_size);
    execute(db, schema);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        FILE *file = open_file(unicode_dir, files[i].name);
        import_file(db, file, files[i].insert, files[i].add);
        fclose(file);
    }
    execute(db, "COMMIT; ANALYZE;");
    sqlite3_close(db);
}
