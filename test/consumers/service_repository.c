/*
 * service_repository.c -- what test/build/service_repository.sh asks of the template service's
 * repository, writer and JSON, without the service.
 *
 *   json                        checks both directions
 *   open ADDRESS TEMPLATES      opens a repository, and no more
 *   sql FILE STATEMENTS         of SQLite; says the first column of each row
 *   writer ADDRESS              checks the order, the bound and the end of the queue
 *   talk ADDRESS TEMPLATES TIMEOUT_MS [DELAY_MS]
 *                               does what is said in lines, and answers each by one:
 *       find ID                 OUTCOME version=N name=TEXT query=N
 *       put ID NAME             OUTCOME version=N
 *       change                  OUTCOME
 *       lock | unlock           of SQLite: ok, or not
 *       start CHANGE_EVERY_MS   ok; a writer
 *       write ID NAME           OUTCOME version=N forgotten=N, by the writer
 *       stop                    ok; the writer
 *   Of those of the database the line ends with ms=N, how long it took.
 */
#include "../../docs/examples/template-service/repository.h"
#include "../../docs/examples/template-service/template.h"
#include "../../docs/examples/template-service/writer.h"

#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int failed;

static void check_at(int line, bool good, const char *what)
{
    if (good)
        return;
    printf("line %d: not so: %s\n", line, what);
    failed = 1;
}
#define check(condition) check_at(__LINE__, (condition), #condition)

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void sleep_ms(int64_t ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

/* ---- the service, as far as the writer knows it ---------------------------------------------- */

enum { MOST_FORGOTTEN = 1000 };

static struct {
    pthread_mutex_t lock;
    int64_t ids[MOST_FORGOTTEN];
    size_t count;
} forgotten = {.lock = PTHREAD_MUTEX_INITIALIZER};

void service_forget(struct service *service, int64_t id)
{
    (void)service;
    pthread_mutex_lock(&forgotten.lock);
    if (forgotten.count < MOST_FORGOTTEN)
        forgotten.ids[forgotten.count] = id;
    forgotten.count++;
    pthread_mutex_unlock(&forgotten.lock);
}

static size_t forgotten_count(void)
{
    pthread_mutex_lock(&forgotten.lock);
    size_t count = forgotten.count;
    pthread_mutex_unlock(&forgotten.lock);
    return count;
}

/* ---- JSON ------------------------------------------------------------------------------------ */

/* begins NULL: it is good. Else the message begins like that, and has that in it: columns are the
 * library's. */
static const struct input {
    const char *json, *begins, *has;
} inputs[] = {
    {"{\"name\":\"n\",\"subject\":\"s\",\"body\":\"b\"}", NULL, ""},
    {" {\n\"body\" : \"\" , \"name\":\"\", \"subject\":\"\"}\n", NULL, ""},
    {"{\"name\":\"\\\"\\\\\\u0001\\ud83d\\ude00\",\"subject\":\"\\n\",\"body\":\"\xc3\xa9\"}", NULL,
     ""},
    {"", "it is empty", ""},
    {" ", "line 1, column ", ""},
    {"[]", "it is not an object", ""},
    {"7", "it is not an object", ""},
    {"null", "it is not an object", ""},
    {"{}", "the field \"name\" is missing", ""},
    {"{\"name\":\"n\",\"subject\":\"s\"}", "the field \"body\" is missing", ""},
    {"{\"name\":\"n\",\"subject\":7,\"body\":\"b\"}", "the field \"subject\" is not a string", ""},
    {"{\"name\":\"n\",\"subject\":null,\"body\":\"b\"}", "the field \"subject\" is not a string",
     ""},
    {"{\"name\":\"n\",\"subject\":\"s\",\"body\":{}}", "the field \"body\" is not a string", ""},
    {"{\"name\":\"n\",\"subject\":\"s\",\"body\":\"b\",\"id\":1}", "there is a field other than ",
     ": \"id\""},
    {"{\"name\":\"n\",\"subject\":\"s\",\"body\":\"b\",\"\":1}", "there is a field other than ",
     ": \"\""},
    {"{\"name\":\"n\",\"subject\":\"s\",\"body\":\"b\","
     "\"a name that is too long to be repeated, and so on\":1}",
     "there is a field other than name, subject and body", ""},
    {"{\"name\":\"n\",\"name\":\"n\",\"subject\":\"s\",\"body\":\"b\"}", "line 1, column ",
     "duplicate object key"},
    {"{\"name\":\"n\",\"subject\":\"s\",\"body\":\"b\"} x", "line 1, column ",
     "end of file expected"},
    {"{\"name\":\"n\",\n\"subject\":}", "line 2, column ", "unexpected token near '}'"},
    {"{\"name\":\"n", "line 1, column ", "premature end of input"},
    {"{\"name\":\"\xff\"}", "line 1, column ", "unable to decode byte 0xff"},
    {"{\"name\":\"\xed\xa0\x80\"}", "line 1, column ", "unable to decode byte 0xed"},
    {"{\"name\":\"\xc0\x80\"}", "line 1, column ", "unable to decode byte 0xc0"},
    {"{\"name\":\"\\ud800\"}", "line 1, column ", "invalid Unicode"},
    {"{\"name\":\"a\tb\"}", "line 1, column ", "control character 0x9"},
    {"{\"name\":\"\\u0000\"}", "line 1, column ", ": the character \\u0000 is not allowed"},
    {"{\"\\u0000\":\"\"}", "line 1, column ", ": the character \\u0000 is not allowed"},
    {"{\"name\":123456789012345678901234567890}", "line 1, column ", "too big integer"},
};

static bool is_as_expected(const char *wrong, const struct input *input)
{
    if (wrong == NULL || input->begins == NULL)
        return wrong == input->begins;
    return strncmp(wrong, input->begins, strlen(input->begins)) == 0 &&
           strstr(wrong, input->has) != NULL;
}

static void check_input(const struct input *input, size_t size)
{
    struct template t;
    char why[160];
    /* A copy of its size: a sanitizer sees what is read behind it. */
    char *copy = malloc(size + (size == 0));
    memcpy(copy, input->json, size);
    const char *wrong = template_from_json(&t, copy, size, why);
    if (!is_as_expected(wrong, input))
        printf("%s\n  is: %s\n  should be: %s...%s\n", input->json, wrong, input->begins,
               input->has);
    check(is_as_expected(wrong, input));
    check((t.name != NULL) == (wrong == NULL));
    check(t.id == 0 && t.version == 0);
    template_clear(&t);
    template_clear(&t);
    free(copy);
}

static void check_deep_input(void)
{
    static char deep[100001];
    memset(deep, '[', sizeof deep - 1);
    check_input(&(struct input){deep, "line 1, column ", "maximum parsing depth reached"},
                sizeof deep - 1);
}

/* What has been written as JSON, with id and version cut off, is read as the same. */
static void check_both_ways(const char *text)
{
    struct template t = {INT64_MAX, INT64_MIN, (char *)text, (char *)text, (char *)text}, back;
    char head[128], why[160];
    size_t size = 0;
    char *json = template_to_json(&t, 7, &size);
    check(json != NULL && size == strlen(json));
    snprintf(head, sizeof head, "{\"id\":%" PRId64 ",\"version\":%" PRId64 ",", t.id, t.version);
    check(strncmp(json, head, strlen(head)) == 0);
    size_t tail = strlen(",\"query\":7}");
    check(size > tail && strcmp(json + size - tail, ",\"query\":7}") == 0);
    json[strlen(head) - 1] = '{';
    json[size - tail] = '}';
    check(template_from_json(&back, json + strlen(head) - 1, size - tail - strlen(head) + 2, why) ==
          NULL);
    check(strcmp(back.name, text) == 0 && strcmp(back.subject, text) == 0 &&
          strcmp(back.body, text) == 0);
    template_clear(&back);
    free(json);
}

static int check_json(void)
{
    struct template bad = {1, 1, "n", "\xff", "b"};
    char controls[32];
    size_t size;
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++)
        check_input(&inputs[i], strlen(inputs[i].json));
    check_input(&(struct input){"{\"name\":\"n\"\0}", "line 1, column ", ""}, 13);
    check_deep_input();
    check_both_ways("");
    check_both_ways("\"quoted\" \\ back / slash");
    check_both_ways("\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \x7f");
    for (int i = 0; i < 31; i++)
        controls[i] = (char)(i + 1);
    controls[31] = '\0';
    check_both_ways(controls);
    check(template_to_json(&bad, 1, &size) == NULL);
    return failed;
}

/* ---- SQLite, by another connection ----------------------------------------------------------- */

static int say_row(void *ctx, int columns, char **values, char **names)
{
    (void)ctx;
    (void)names;
    printf("%s\n", columns > 0 && values[0] != NULL ? values[0] : "NULL");
    return 0;
}

static int run_sql(const char *file, const char *statements)
{
    sqlite3 *db;
    int rc = sqlite3_open(file, &db);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(db, statements, say_row, NULL, NULL);
    if (rc != SQLITE_OK)
        printf("%s\n", sqlite3_errmsg(db));
    sqlite3_close(db);
    return rc != SQLITE_OK;
}

/* ---- lines ----------------------------------------------------------------------------------- */

static const char *const outcome_names[] = {"ok",        "not_found", "created",
                                            "not_asked", "failed",    "timeout"};

struct talk {
    struct repository *repository;
    struct connection *connection;
    struct writer *writer;
    sqlite3 *locker;
    const char *address;
};

static void say_find(struct talk *talk, int64_t id)
{
    struct template t = {0};
    uint64_t query = 0;
    enum db_outcome outcome = repository_find(talk->connection, id, &t, &query);
    check(outcome == DB_OK || t.name == NULL);
    check(query <= repository_queries(talk->repository));
    printf("%s version=%" PRId64 " name=%s query=%" PRIu64, outcome_names[outcome], t.version,
           t.name != NULL ? t.name : "", query);
    template_clear(&t);
}

static void say_put(struct talk *talk, int64_t id, const char *name)
{
    struct template t = {id, 0, strdup(name), strdup("s"), strdup("b")};
    enum db_outcome outcome = repository_put(talk->connection, &t);
    printf("%s version=%" PRId64, outcome_names[outcome], t.version);
    template_clear(&t);
}

struct one_write {
    struct write write; /* first: done is given it */
    sem_t done;
};

static void on_one_write(struct write *write)
{
    sem_post(&((struct one_write *)write)->done);
}

static void say_write(struct talk *talk, int64_t id, const char *name)
{
    struct one_write one = {.write = {.done = on_one_write}};
    size_t before = forgotten_count();
    one.write.template = (struct template){id, 0, strdup(name), strdup("s"), strdup("b")};
    sem_init(&one.done, 0, 0);
    if (writer_put(talk->writer, &one.write)) {
        sem_wait(&one.done);
        printf("%s version=%" PRId64 " forgotten=%zu", outcome_names[one.write.outcome],
               one.write.template.version, forgotten_count() - before);
    } else
        printf("refused");
    sem_destroy(&one.done);
    template_clear(&one.write.template);
}

static void say_lock(struct talk *talk)
{
    sqlite3_close(talk->locker);
    int rc = sqlite3_open(talk->address, &talk->locker);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(talk->locker, "BEGIN IMMEDIATE; DELETE FROM templates", NULL, NULL, NULL);
    printf("%s", rc == SQLITE_OK ? "ok" : sqlite3_errmsg(talk->locker));
}

static void say(struct talk *talk, const char *word, int64_t number, const char *rest)
{
    if (strcmp(word, "find") == 0) {
        say_find(talk, number);
    } else if (strcmp(word, "put") == 0) {
        say_put(talk, number, rest);
    } else if (strcmp(word, "change") == 0) {
        printf("%s", outcome_names[repository_change_all(talk->connection)]);
    } else if (strcmp(word, "start") == 0) {
        talk->writer = writer_start(talk->repository, NULL, 100, number);
        printf("%s", talk->writer != NULL ? "ok" : "not started");
    } else if (strcmp(word, "write") == 0) {
        say_write(talk, number, rest);
    } else if (strcmp(word, "stop") == 0) {
        writer_stop(talk->writer);
        talk->writer = NULL;
        printf("ok");
    } else if (strcmp(word, "lock") == 0) {
        say_lock(talk);
    } else if (strcmp(word, "unlock") == 0) {
        sqlite3_close(talk->locker);
        talk->locker = NULL;
        printf("ok");
    } else
        printf("what is %s?", word);
}

static int talk(const struct repository_options *options)
{
    struct talk talk = {.repository = repository_open(options), .address = options->address};
    char line[256];
    if (talk.repository == NULL)
        return 1;
    talk.connection = connection_new(talk.repository);
    printf("%s\n", repository_describe(talk.repository));
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        char word[16] = "", rest[200] = "";
        int64_t number = 0, began_ms = now_ms();
        sscanf(line, "%15s %" SCNd64 " %199[^\n]", word, &number, rest);
        say(&talk, word, number, rest);
        printf(" ms=%" PRId64 "\n", now_ms() - began_ms);
        fflush(stdout);
    }
    writer_stop(talk.writer);
    connection_free(talk.connection);
    repository_close(talk.repository);
    return failed;
}

/* ---- the writer ------------------------------------------------------------------------------ */

enum { WRITES = 50 };

struct job {
    struct write write; /* first */
    struct bench *bench;
    bool holds; /* its done waits until it is let go */
    int turn;   /* 0: not done yet */
    size_t forgotten_before;
};

struct bench {
    struct repository *repository;
    struct writer *writer;
    struct job jobs[WRITES];
    sem_t holding, go, done;
    int turns; /* the writer's thread's */
};

static void on_done(struct write *write)
{
    struct job *job = (struct job *)write;
    struct bench *bench = job->bench;
    job->forgotten_before = forgotten_count();
    job->turn = ++bench->turns;
    if (job->holds) {
        sem_post(&bench->holding);
        sem_wait(&bench->go);
    }
    sem_post(&bench->done);
}

static struct bench *bench_new(struct repository *repository, size_t max_queued, int64_t change_ms)
{
    struct bench *bench = calloc(1, sizeof *bench);
    bench->repository = repository;
    sem_init(&bench->holding, 0, 0);
    sem_init(&bench->go, 0, 0);
    sem_init(&bench->done, 0, 0);
    forgotten.count = 0;
    bench->writer = writer_start(repository, NULL, max_queued, change_ms);
    check(bench->writer != NULL);
    return bench;
}

static void bench_free(struct bench *bench)
{
    writer_stop(bench->writer);
    for (size_t i = 0; i < WRITES; i++)
        template_clear(&bench->jobs[i].write.template);
    sem_destroy(&bench->holding);
    sem_destroy(&bench->go);
    sem_destroy(&bench->done);
    free(bench);
}

static bool give(struct bench *bench, int i, int64_t id)
{
    struct job *job = &bench->jobs[i];
    char name[32];
    snprintf(name, sizeof name, "write %d", i);
    job->bench = bench;
    job->write.done = on_done;
    job->write.template = (struct template){id, 0, strdup(name), strdup("s"), strdup("b")};
    return writer_put(bench->writer, &job->write);
}

/* The writer is busy, and what is given to it waits, until bench->go. */
static void hold(struct bench *bench, int i, int64_t id)
{
    bench->jobs[i].holds = true;
    check(give(bench, i, id));
    sem_wait(&bench->holding);
}

static void await_done(struct bench *bench, int count)
{
    for (int i = 0; i < count; i++)
        sem_wait(&bench->done);
}

static int64_t version_of(struct repository *repository, int64_t id, char *name)
{
    struct connection *connection = connection_new(repository);
    struct template t = {0};
    uint64_t query;
    check(repository_find(connection, id, &t, &query) == DB_OK);
    if (name != NULL)
        snprintf(name, 32, "%s", t.name);
    template_clear(&t);
    connection_free(connection);
    return t.version;
}

static void check_order(struct repository *repository)
{
    struct bench *bench = bench_new(repository, WRITES, 0);
    char name[32];
    int64_t before = version_of(repository, 1, NULL);
    for (int i = 0; i < WRITES; i++)
        check(give(bench, i, 1));
    await_done(bench, WRITES);
    for (int i = 0; i < WRITES; i++) {
        const struct job *job = &bench->jobs[i];
        check(job->turn == i + 1);
        check(job->write.outcome == DB_OK);
        check(job->write.template.version == before + i + 1);
        check(job->forgotten_before == (size_t)i + 1);
        check(forgotten.ids[i] == 1);
    }
    check(version_of(repository, 1, name) == before + WRITES);
    check(strcmp(name, "write 49") == 0);
    bench_free(bench);
}

static void check_bound(struct repository *repository)
{
    struct bench *bench = bench_new(repository, 3, 0);
    hold(bench, 0, 1);
    check(give(bench, 1, 2) && give(bench, 2, 2) && give(bench, 3, 2));
    check(!give(bench, 4, 2));
    sem_post(&bench->go);
    await_done(bench, 4);
    check(give(bench, 5, 2));
    await_done(bench, 1);
    check(bench->jobs[4].turn == 0 && bench->jobs[5].turn == 5);
    check(forgotten_count() == 5);
    bench_free(bench);
}

static void check_token(struct repository *repository)
{
    struct bench *bench = bench_new(repository, 3, 0);
    int64_t before = version_of(repository, 2, NULL);
    aside_cancel *left = NULL, *stays = NULL, *late = NULL;
    check(aside_cancel_new(&left) == ASIDE_OK && aside_cancel_new(&stays) == ASIDE_OK &&
          aside_cancel_new(&late) == ASIDE_OK);
    bench->jobs[1].write.token = left;
    bench->jobs[2].write.token = stays;
    bench->jobs[3].write.token = late;
    hold(bench, 0, 1);
    check(give(bench, 1, 2) && give(bench, 2, 2) && give(bench, 3, 2));
    aside_cancel_fire(left);
    check(aside_cancel_set_deadline(late, 1, NULL) == ASIDE_OK);
    sleep_ms(20);
    sem_post(&bench->go);
    await_done(bench, 4);
    check(bench->jobs[1].write.outcome == DB_NOT_ASKED);
    check(bench->jobs[3].write.outcome == DB_NOT_ASKED);
    check(bench->jobs[2].write.outcome == DB_OK);
    check(forgotten_count() == 2 && forgotten.ids[0] == 1 && forgotten.ids[1] == 2);
    check(version_of(repository, 2, NULL) == before + 1);
    bench_free(bench);
    aside_cancel_unref(left);
    aside_cancel_unref(stays);
    aside_cancel_unref(late);
}

static void *let_go_later(void *arg)
{
    struct bench *bench = arg;
    sleep_ms(50);
    sem_post(&bench->go);
    return NULL;
}

static void check_stop(struct repository *repository)
{
    struct bench *bench = bench_new(repository, 10, 1000000);
    pthread_t thread;
    hold(bench, 0, 1);
    for (int i = 1; i <= 10; i++)
        check(give(bench, i, 2));
    check(pthread_create(&thread, NULL, let_go_later, bench) == 0);
    writer_stop(bench->writer);
    bench->writer = NULL;
    pthread_join(thread, NULL);
    for (int i = 0; i <= 10; i++)
        check(bench->jobs[i].turn == i + 1 && bench->jobs[i].write.outcome == DB_OK);
    check(forgotten_count() == 11);
    bench_free(bench);
}

static void check_created(struct repository *repository)
{
    struct bench *bench = bench_new(repository, 10, 0);
    check(give(bench, 0, INT64_MAX) && give(bench, 1, INT64_MAX) && give(bench, 2, INT64_MIN));
    await_done(bench, 3);
    check(bench->jobs[0].write.outcome == DB_CREATED);
    check(bench->jobs[1].write.outcome == DB_OK && bench->jobs[1].write.template.version == 2);
    check(bench->jobs[2].write.outcome == DB_CREATED);
    check(forgotten.ids[0] == INT64_MAX && forgotten.ids[2] == INT64_MIN);
    bench_free(bench);
}

static void check_changes(struct repository *repository)
{
    struct bench *bench = bench_new(repository, WRITES, 10);
    int64_t before = version_of(repository, 3, NULL);
    for (int64_t until_ms = now_ms() + 30000;
         now_ms() < until_ms && version_of(repository, 3, NULL) < before + 3;)
        sleep_ms(5);
    check(version_of(repository, 3, NULL) >= before + 3);
    check(forgotten_count() == 0);
    bench_free(bench);
    before = version_of(repository, 3, NULL);
    sleep_ms(50);
    check(version_of(repository, 3, NULL) == before);
}

/* The queue is never empty, and yet there are changes; there are changes, and yet it is worked off. */
static void check_changes_beside_writes(struct repository *repository)
{
    int64_t before = version_of(repository, 3, NULL), changed = before;
    int rounds = 0;
    for (; rounds < 200 && changed < before + 3; rounds++) {
        struct bench *bench = bench_new(repository, WRITES, 1);
        hold(bench, 0, 1);
        for (int i = 1; i < WRITES; i++)
            check(give(bench, i, 1));
        sleep_ms(3);
        sem_post(&bench->go);
        await_done(bench, 2);
        changed = version_of(repository, 3, NULL);
        bench_free(bench);
    }
    check(changed >= before + 3);
}

static int check_writer(const struct repository_options *options)
{
    struct repository *repository = repository_open(options);
    if (repository == NULL)
        return 1;
    check_order(repository);
    check_bound(repository);
    check_token(repository);
    check_stop(repository);
    check_created(repository);
    check_changes(repository);
    check_changes_beside_writes(repository);
    writer_stop(NULL);
    connection_free(NULL);
    repository_close(repository);
    repository_close(NULL);
    return failed;
}

/* ---------------------------------------------------------------------------------------------- */

static int64_t argument(int argc, char **argv, int i, int64_t otherwise)
{
    return argc > i ? strtoll(argv[i], NULL, 10) : otherwise;
}

static int open_only(const struct repository_options *options)
{
    struct repository *repository = repository_open(options);
    repository_close(repository);
    return repository == NULL;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    struct repository_options options = {.address = argc > 2 ? argv[2] : ""};
    options.templates = argument(argc, argv, 3, 10);
    options.query_timeout_ms = argument(argc, argv, 4, 5000);
    options.delay_ms = argument(argc, argv, 5, 0);
    if (strcmp(what, "json") == 0)
        return check_json();
    if (strcmp(what, "open") == 0)
        return open_only(&options);
    if (strcmp(what, "sql") == 0 && argc > 3)
        return run_sql(argv[2], argv[3]);
    if (strcmp(what, "writer") == 0)
        return check_writer(&options);
    if (strcmp(what, "talk") == 0)
        return talk(&options);
    return 2;
}
